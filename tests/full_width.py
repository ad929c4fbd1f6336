"""FLUX.1 at its real width without weights, LoRA files for it of a few tensors, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from safelight.engine.devices import Precision
from safelight.engine.families.flux1.components import Components
from safelight.engine.families.flux1.loras.files import read_lora
from safelight.engine.low_rank import Lora
from safelight.errors import ModelLoadError
from safelight.model.spec import LoraFile

WIDTH = 3072
GOOD = "lora_unet_double_blocks_0_img_attn_proj"
"""A layer that the model has."""
Shapes = Mapping[str, tuple[int, ...]]


def full_width_components(*, guidance_embeds: bool = False) -> Components:
    """One block of each kind; fp32 on the CPU."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=guidance_embeds)
        clip = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=12)
        )
    unused: dict[str, Any] = dict.fromkeys(
        ("autoencoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler_config")
    )
    return Components(
        transformer=transformer,
        text_encoder=clip,
        device=torch.device("cpu"),
        precision=Precision(computation=torch.float32),
        **unused,
    )


def kohya(name: str, inputs: int = WIDTH, outputs: int = WIDTH) -> dict[str, tuple[int, ...]]:
    return {f"{name}.lora_down.weight": (2, inputs), f"{name}.lora_up.weight": (outputs, 2), f"{name}.alpha": ()}


def peft(name: str, inputs: int = WIDTH, outputs: int = WIDTH) -> dict[str, tuple[int, ...]]:
    return {f"{name}.lora_A.weight": (2, inputs), f"{name}.lora_B.weight": (outputs, 2)}


def ones(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.ones(shape) for name, shape in shapes.items()}


def zeros(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.full(shape, float(name.endswith(".alpha"))) for name, shape in shapes.items()}


def read(file: Path, components: Components, tensors: Mapping[str, Tensor], **metadata: str) -> Lora:
    save_file(dict(tensors), file, metadata=metadata or None)
    return read_lora(LoraFile(name="film", file=str(file)), components)


def refusal(file: Path, components: Components, tensors: Mapping[str, Tensor], **metadata: str) -> str:
    """What is said of a file, which begins with its path and is one line."""
    with pytest.raises(ModelLoadError) as caught:
        read(file, components, tensors, **metadata)
    message = caught.value.message
    assert message.startswith(f"{file} ")
    assert message.isprintable()
    assert len(message) < 1500 + len(str(file))
    return message
