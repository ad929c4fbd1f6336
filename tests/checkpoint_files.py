"""What tells that a folder holds a FLUX.1 checkpoint: the true configs in small, with weights that are empty."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "model_index.json": {
        "_class_name": "FluxPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
    "scheduler/scheduler_config.json": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0},
    "text_encoder/config.json": {"architectures": ["CLIPTextModel"], "hidden_size": 768},
    "text_encoder_2/config.json": {"architectures": ["T5EncoderModel"], "d_model": 4096},
    "tokenizer/tokenizer_config.json": {"model_max_length": 77},
    "tokenizer_2/tokenizer_config.json": {"model_max_length": 512},
    "transformer/config.json": {
        "_class_name": "FluxTransformer2DModel",
        "guidance_embeds": False,
        "in_channels": 64,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [128, 256, 512, 512],
        "latent_channels": 16,
    },
}
WEIGHTS = (
    "text_encoder/model.safetensors",
    "text_encoder_2/model.safetensors",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)


def write_checkpoint(folder: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write the files to `folder`; `changes` are merged into the configs, by path."""
    for name in {*CONFIGS, *(changes or {})}:
        write_json(folder / name, {**CONFIGS.get(name, {}), **(changes or {}).get(name, {})})
    for name in WEIGHTS:
        (folder / name).write_bytes(save({}, metadata={"file": name}))  # no two alike: the hub's cache keeps one
    return folder


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
