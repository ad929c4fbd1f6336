"""Where networks wait until they work. diffusers and accelerate have the hooks that bring them: this chooses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import cpu_offload_with_hook
from diffusers.hooks import apply_group_offloading

from safelight.model.families.layout import TILE_SIZE
from safelight.model.memory.plan import Choice

MEMORY = torch.device("cpu")


def waiting_place(name: str, choice: Choice, device: torch.device) -> torch.device:
    """Where a network is loaded to."""
    return MEMORY if choice.offload == "model" or choice.is_streamed(name) else device


def place(networks: Mapping[str, Any], choice: Choice, device: torch.device) -> None:
    """From here on each network comes to the device by itself when it is called, and leaves it for the next."""
    if choice.offload == "model":
        hook = None
        for network in networks.values():
            _, hook = cpu_offload_with_hook(network, device, prev_module_hook=hook)
    for name, network in networks.items():
        if choice.is_streamed(name):
            apply_group_offloading(
                network,
                onload_device=device,
                offload_device=MEMORY,
                offload_type="leaf_level",
                use_stream=device.type == "cuda",
                record_stream=device.type == "cuda",  # else each layer waits, on the CPU, for the one before it
            )
    autoencoder = networks["vae"]
    if choice.vae_tiling and hasattr(autoencoder, "tile_latent_min_size"):
        autoencoder.enable_tiling()
        autoencoder.tile_latent_min_size = (
            autoencoder.tile_latent_min_size * TILE_SIZE // autoencoder.tile_sample_min_size
        )
        autoencoder.tile_sample_min_size = TILE_SIZE
