"""FLUX.1-schnell in its true configuration with random weights, already quantized: no byte of it is downloaded.

Of fewer layers too, at their true width. Matrices have the spread at which a layer keeps the size of what goes through
it, so that a picture comes out finite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from safelight.engine.weights.lean_loading import repeated_linears
from safelight.engine.weights.quantized_files import QuantizedFiles, group_entries
from safelight.model.checkpoint import SIDECAR
from safelight.model.configs import INDEX
from safelight.model.families.flux1 import FLUX1
from safelight.model.heads.own_format import METHOD
from safelight.model.revision import record_digests
from safelight.model.single_files import configs
from safelight.settings import Quantization
from tests.tiny_flux import clip_tokenizer, t5_tokenizer

QUANTIZED = ("transformer", "text_encoder_2")
SPREAD = {"int8": 256 / 12**0.5, "nf4": 0.58}
"""Standard deviation of what random bytes stand for."""
MAX_SIZE = 1024
"""Of a side. What the largest picture takes is part of the plan; 2048 would ask for 3 GB more than a picture here."""
Layers = Mapping[str, Mapping[str, Any]]
"""Component -> what its config says instead, such as `num_layers`."""
_LEVELS = 4


def plan_flux(quantization: Quantization, layers: Layers | None = None) -> dict[str, QuantizedFiles]:
    """Component -> the files that it will have."""
    return {
        name: _plan(network, quantization if name in QUANTIZED else "none", seed)
        for seed, (name, network) in enumerate(_networks(layers or {}).items())
    }


def write_flux(folder: Path, files: Mapping[str, QuantizedFiles], layers: Layers | None = None) -> None:
    """Into a new folder. Raises OSError."""
    stems = {network.name: network.stem for network in FLUX1.networks}
    for name, each in files.items():
        place = folder / name
        place.mkdir(parents=True)
        config = dict(_config(name, layers or {}))
        if each.quantization != "none":
            config["quantization_config"] = {"quant_method": METHOD, "type": each.quantization}
        (place / "config.json").write_text(json.dumps(config))
        for _ in each.write(place, stems[name]):
            pass
        record_digests(place)
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    t5_tokenizer().save_pretrained(folder / "tokenizer_2")
    schedule = folder / "scheduler" / "scheduler_config.json"
    schedule.parent.mkdir()
    schedule.write_text(json.dumps(configs.scheduler_config(guidance_embeds=False)))
    (folder / SIDECAR).write_text(json.dumps({"max_size": MAX_SIZE}))
    (folder / INDEX).write_text(json.dumps(configs.INDEX))


def _config(name: str, layers: Layers) -> Mapping[str, Any]:
    """As published; the CLIP tokenizer of the tests ends a text with 1."""
    more: dict[str, Any] = {
        "vae": {
            "down_block_types": ["DownEncoderBlock2D"] * _LEVELS,
            "up_block_types": ["UpDecoderBlock2D"] * _LEVELS,
        },
        "text_encoder": {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
    }
    return {**configs.COMPONENTS[name], **more.get(name, {}), **layers.get(name, {})}


def _networks(layers: Layers) -> dict[str, nn.Module]:
    """Without weights."""
    with init_empty_weights(include_buffers=False):
        networks: dict[str, nn.Module] = {
            "transformer": FluxTransformer2DModel.from_config(_config("transformer", layers)),
            "vae": AutoencoderKL.from_config(_config("vae", layers)),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**_config("text_encoder", layers))),
            "text_encoder_2": T5EncoderModel(T5Config(**_config("text_encoder_2", layers))),
        }
    networks["text_encoder_2"].tie_weights()  # type: ignore[operator]
    return networks


def _plan(network: nn.Module, quantization: Quantization, seed: int) -> QuantizedFiles:
    heads = {name: ("BF16", tuple(parameter.shape)) for name, parameter in network.named_parameters()}
    repeated = {f"{name}.weight" for name in repeated_linears(network)} if quantization != "none" else set()
    groups = group_entries(heads, repeated, quantization)
    norms = {
        f"{name}.weight"
        for name, layer in network.named_modules()
        if "norm" in type(layer).__name__.lower() and getattr(layer, "weight", None) is not None
    }
    random = np.random.default_rng(seed)

    def numbers(name: str) -> Sequence[Tensor]:
        shape = heads[name][1]
        if name in repeated:
            numbers, scales = groups[name]
            spread = SPREAD[quantization] * math.sqrt(shape[1])
            content = np.frombuffer(random.bytes(numbers.num_bytes), dtype=np.uint8)
            dtype = torch.float32 if scales.dtype == "F32" else torch.float16
            return torch.from_numpy(content.copy()), torch.full(scales.shape, 1 / spread, dtype=dtype)
        if name in norms or len(shape) < 2:
            return (torch.full(shape, float(name in norms), dtype=torch.bfloat16),)
        spread = 1.0 if "embed_tokens" in name or "shared" in name else 1 / math.sqrt(math.prod(shape[1:]))
        drawn = torch.from_numpy(random.standard_normal(shape, dtype=np.float32))
        return (drawn.mul_(spread).to(torch.bfloat16),)

    return QuantizedFiles(groups, numbers, quantization)
