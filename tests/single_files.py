"""FLUX.1's parts as people have them: the weights of a small checkpoint in the files of BFL, ComfyUI and llama.cpp."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from safelight.model.single_files import names
from safelight.model.single_files.names import Table
from tests.gguf_files import packed, write_gguf
from tests.tiny_flux import t5_tokenizer

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
        parts = torch.split(weight, [stop - start for start, stop in ranges])
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


def with_gated_t5(folder: Path, to: Path) -> Path:
    """The small checkpoint with a T5 of version 1.1, as FLUX.1 has: the only kind that comes in single files."""
    shutil.copytree(folder, to)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(to / "text_encoder_2")
    torch.set_rng_state(state)
    return to


def config_of(folder: Path, component: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / component / "config.json").read_text())
    return config


def write_single_files(
    folder: Path, to: Path, transform: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
) -> dict[str, Path]:
    """A file for each component, in BFL's or ComfyUI's names; `transform` quantizes the two large ones."""
    to.mkdir(exist_ok=True)
    written = {}
    for component in ALL_IN_ONE:
        tensors = as_bfl(folder, component, config_of(folder, component))
        if component in ("transformer", "text_encoder_2"):
            tensors = transform(tensors)
        written[component] = save(to / f"{component}.sft.safetensors", tensors)
    return written


def write_all_in_one(folder: Path, path: Path) -> Path:
    tensors: dict[str, Tensor] = {"text_encoders.clip_l.logit_scale": torch.ones(())}
    for component, prefix in ALL_IN_ONE.items():
        tensors |= prefixed(as_bfl(folder, component, config_of(folder, component)), prefix)
    return save(path, tensors)


def write_ggufs(folder: Path, to: Path, kind: str, *, as_numbers: bool = False) -> dict[str, Path]:
    """The transformer and T5: matrices in that type where their rows are whole blocks, else in F16; the rest in F32.

    `as_numbers`: all of it in F32, as what the types stand for.
    """
    to.mkdir(exist_ok=True)
    block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]

    def type_of(tensor: Tensor) -> str:
        if tensor.ndim != 2 or kind == "F32":
            return "F32"
        is_large = len(tensor) > 10_000  # words: slow to pack by hand, and the same as any other rows
        return kind if tensor.shape[1] % block == 0 and not is_large else "F16"

    transformer = as_bfl(folder, "transformer", config_of(folder, "transformer"))
    t5 = renamed(weights_of(folder, "text_encoder_2"), names.llama_t5(config_of(folder, "text_encoder_2")))
    if as_numbers:
        transformer, t5 = (
            {name: stood_for(each, type_of(each)) for name, each in tensors.items()} for tensors in (transformer, t5)
        )
    used = (lambda _: "F32") if as_numbers else type_of
    return {
        "transformer": save_gguf(to / f"flux1-tiny-{kind}.gguf", transformer, used),
        "text_encoder_2": save_gguf(to / f"t5-tiny-{kind}.gguf", t5, used, "t5encoder"),
    }


def stood_for(tensor: Tensor, kind: str) -> Tensor:
    """The numbers that a tensor becomes in a type of GGUF."""
    blocks = np.frombuffer(packed(tensor.float().numpy(), kind), np.uint8)
    if kind != "F32":
        block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
        blocks = blocks.reshape(-1, block_bytes)
    numbers = gguf.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    return torch.from_numpy(numbers.reshape(tensor.shape).copy())
