"""Random LoRAs for the tiny FLUX, in the formats that people have: diffusers' and PEFT's, and kohya's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

TRANSFORMER_LAYERS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_k_proj",
    "proj_mlp",
    "proj_out",
    "norm1.linear",
    "x_embedder",
)
CLIP_LAYERS = ("q_proj", "v_proj", "fc1")


def save_lora(folder: Path, *, base: Path, seed: int = 0, rank: int = 4, has_clip: bool = False, **config: Any) -> Path:
    """Train-like weights (no matrix is zero) as diffusers' scripts save them. `config` goes to peft's LoraConfig."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    pipeline = FluxPipeline.from_pretrained(base)
    parts = {"transformer": _adapt(pipeline.transformer, rank, TRANSFORMER_LAYERS, config)}
    if has_clip:
        parts["text_encoder"] = _adapt(pipeline.text_encoder, rank, CLIP_LAYERS, config)
    torch.set_rng_state(state)
    metadata = {
        f"{name}_lora_adapter_metadata": getattr(pipeline, name).peft_config["default"].to_dict() for name in parts
    }
    FluxPipeline.save_lora_weights(
        folder, **{f"{name}_lora_layers": layers for name, layers in parts.items()}, **(metadata if config else {})
    )
    return folder / "pytorch_lora_weights.safetensors"


def save_kohya_lora(file: Path, *, seed: int = 0, rank: int = 2, alpha: float = 1.0) -> Path:
    """As kohya's sd-scripts save them: fused projections, and an alpha for each layer."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"img_attn_qkv": (96, 32), "img_mlp_0": (128, 32), "img_mod_lin": (192, 32)}
    names = {f"lora_unet_double_blocks_0_{layer}": size for layer, size in sizes.items()}
    for layer, size in {"self_attn_q_proj": (32, 32), "self_attn_out_proj": (32, 32), "mlp_fc1": (37, 32)}.items():
        names[f"lora_te1_text_model_encoder_layers_1_{layer}"] = size
    tensors = {}
    for name, (rows, columns) in names.items():
        tensors[f"{name}.lora_down.weight"] = 0.3 * torch.randn(rank, columns, generator=generator)
        tensors[f"{name}.lora_up.weight"] = 0.3 * torch.randn(rows, rank, generator=generator)
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, file, metadata={"ss_network_dim": json.dumps(rank)})
    return file


def _adapt(network: Any, rank: int, layers: tuple[str, ...], config: dict[str, Any]) -> dict[str, Tensor]:
    network.add_adapter(LoraConfig(r=rank, target_modules=list(layers), init_lora_weights=False, **config))
    tensors = get_peft_model_state_dict(network)
    return {name: 0.5 * torch.randn(tensor.shape) for name, tensor in tensors.items()}
