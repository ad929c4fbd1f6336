"""FLUX.1's parts as people have them: the weights of a small checkpoint in the files of BFL, ComfyUI and llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from safelight.model.single_files import names
from safelight.model.single_files.names import Table
from tests.gguf_files import write_gguf

ALL_IN_ONE = {
    "transformer": "model.diffusion_model.",
    "vae": "vae.",
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.t5xxl.transformer.",
}


def renamed(weights: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """The parameters under the names of the table, put together where several are one tensor."""
    made: dict[str, list[tuple[tuple[int, int], Tensor]]] = {}
    for name, source in table.items():
        weight = weights[name]
        if source.is_convolution:
            weight = weight[:, :, None, None]
        ranges = source.rows or ((0, len(weight)),)
        parts = weight.split([stop - start for start, stop in ranges])
        made.setdefault(source.name, []).extend(zip(ranges, parts, strict=True))
    return {
        name: torch.cat([part for _, part in sorted(parts, key=lambda each: each[0])]).contiguous()
        for name, parts in made.items()
    }


def weights_of(folder: Path, component: str) -> dict[str, Tensor]:
    """Of a checkpoint in the diffusers layout, in one file for each component."""
    (path,) = (folder / component).glob("*.safetensors")
    return {name.removeprefix("text_model."): weight for name, weight in load_file(path).items()}


def as_bfl(folder: Path, component: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """In BFL's names, or those that ComfyUI's files of text encoders have."""
    tables = {
        "transformer": names.bfl_transformer,
        "vae": names.ldm_autoencoder,
        "text_encoder": names.transformers_clip,
        "text_encoder_2": names.transformers_t5,
    }
    return renamed(weights_of(folder, component), tables[component](config))


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def scaled_fp8(
    tensors: Mapping[str, Tensor], *, ending: str = "scale_weight", marked: bool = True
) -> dict[str, Tensor]:
    """Matrices in fp8 with a scale of their own, as ComfyUI's quantizer leaves them."""
    made: dict[str, Tensor] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)} if marked else {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not name.endswith(".weight") or "shared" in name or "embed" in name or "bias" in name:
            made[name] = tensor
            continue
        scale = tensor.abs().max() / 448
        layer = name.removesuffix(".weight")
        made |= {name: (tensor / scale).to(torch.float8_e4m3fn), f"{layer}.{ending}": scale}
        made[f"{layer}.scale_input"] = torch.ones(())
    return made


def save(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def save_gguf(
    path: Path, tensors: Mapping[str, Tensor], type_of: Callable[[Tensor], str], architecture: str = "flux"
) -> Path:
    numbers = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    return write_gguf(path, numbers, lambda name: type_of(tensors[name]), architecture=architecture)
