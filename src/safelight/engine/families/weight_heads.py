"""Do a component's files hold what its config asks for, no less and no more? Told by their heads, before any weight.

A weight that nothing asks for changes the picture by its absence: a scale of quantized weights, another model's layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors import safe_open
from transformers.initialization import no_init_weights

from safelight.errors import ModelLoadError, UnsupportedModel
from safelight.model.configs import read_json
from safelight.model.heads.file_head import read_head
from safelight.model.heads.library_formats import Library, find_packed, library_in_config
from safelight.model.heads.own_format import METADATA, kind_in_config, own_scales
from safelight.model.weight_files import PLAIN_WEIGHTS

_INERT = re.compile(r"(^|\.)(position_ids|logit_scale|text_projection\.weight)$")
"""What CLIP's files have, and no picture depends on where the component's class does not ask for it."""
_READ_DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_QUANTIZERS = (
    (
        re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale(_2)?|input_scale|comfy_quant)$"),
        "scaled fp8",
    ),
    (re.compile(r"\.((nested_)?absmax|(nested_)?quant_map|SCB|weight_format)$|\.quant_state\."), "bitsandbytes"),
    (re.compile(r"\._(data|scale|shift)$"), "quanto"),
    (re.compile(r"\._weight_(qdata|scale|zero_point)$"), "torchao"),
    (re.compile(r"\.(zero_point|svd_up|svd_down)$"), "SDNQ"),
    (re.compile(r"\.(qweight|qzeros|wscales|wzeros|smooth_factor)$"), "Nunchaku, GPTQ or AWQ"),
)
"""How each names what belongs to its quantized weights."""


@dataclass(frozen=True, slots=True)
class _Head:
    """One tensor as the head of its file tells of it."""

    path: Path
    dtype: str
    shape: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Differences:
    """Between what the files hold and what the config asks for, by name."""

    lacking: Sequence[str]
    """Or of another shape."""
    unexpected: Sequence[str]


def check_weights(place: Path, paths: Iterable[Path], component_class: Any) -> None:
    """Raises UnsupportedModel for weights that would be left out or misread, ModelLoadError for those that are missing.

    `paths` are the safetensors files of the component in `place`. Raises what the libraries do on a broken file.
    """
    config = read_json(place / "config.json")
    kind, library = kind_in_config(config), library_in_config(config)
    if library is not None:
        heads = _read_packed_heads(paths, library)
    else:
        heads = _read_heads(paths) if kind is None else _read_own_heads(paths, kind)
    is_of_diffusers = issubclass(component_class, ModelMixin)
    differences = (_compare_diffusers if is_of_diffusers else _compare_transformers)(place, heads, component_class)
    unexpected = [name for name in differences.unexpected if not _INERT.search(name)]
    _check_not_quantized(heads, unexpected)
    if differences.lacking:
        raise ModelLoadError(
            f"{place} lacks {len(differences.lacking)} of the weights that its config.json asks for, or has them in "
            f"another shape (such as {differences.lacking[0]}); download the checkpoint again"
        )
    if unexpected:
        raise UnsupportedModel(_why_unexpected(heads, unexpected))


def _read_heads(paths: Iterable[Path]) -> dict[str, _Head]:
    heads = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  no mapping
                head = file.get_slice(name)
                heads[name] = _Head(path, head.get_dtype(), head.get_shape())
    return heads


def _read_own_heads(paths: Iterable[Path], kind: str) -> dict[str, _Head]:
    """As if nothing were quantized: of files that were quantized here as `kind`. Raises ModelLoadError."""
    heads = {}
    for path in paths:
        head = read_head(path)
        if head.metadata.get(METADATA) != kind:
            raise ModelLoadError(f"{path} is not quantized as {kind}, as config.json beside it says; quantize it again")
        scales = own_scales(path, head)
        for name in head.tensors.keys() - scales.values():
            tensor = head.tensors[name]
            heads[name] = _Head(path, "F32" if name in scales else tensor.dtype, tensor.shape)
    return heads


def _read_packed_heads(paths: Iterable[Path], library: Library) -> dict[str, _Head]:
    """As if nothing were quantized: of files that the library wrote. Raises UnsupportedModel."""
    files = {path: read_head(path) for path in paths}
    packed, first = find_packed(files, library), next(iter(files))
    where = {name: path for path, head in files.items() for name in head.tensors}
    heads = {name: _Head(where[name], tensor.dtype, tensor.shape) for name, tensor in packed.plain.items()}
    return heads | {name: _Head(where.get(name, first), "F32", weight.shape) for name, weight in packed.weights.items()}


def _compare_diffusers(place: Path, heads: Mapping[str, _Head], component_class: Any) -> _Differences:
    with torch.device("meta"), no_init_weights():
        network = component_class.from_config(component_class.load_config(place, local_files_only=True))
    asked = {name: list(weight.shape) for name, weight in network.state_dict().items()}
    given = {name: list(head.shape) for name, head in heads.items()}
    lacking = [name for name, shape in asked.items() if given.get(name) != shape]
    return _Differences(sorted(lacking), sorted(given.keys() - asked.keys()))


def _compare_transformers(place: Path, heads: Mapping[str, _Head], component_class: Any) -> _Differences:
    """As transformers does, which renames what older versions wrote: tensors without content are loaded."""
    config = component_class.config_class.from_pretrained(place, local_files_only=True)
    config.__dict__.pop("quantization_config", None)  # what was quantized here, transformers knows nothing of
    _, report = component_class.from_pretrained(
        None,
        config=config,
        state_dict={name: torch.empty(head.shape, device="meta") for name, head in heads.items()},
        device_map={"": "meta"},
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        local_files_only=True,
    )
    lacking = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    unexpected = {_name_in_file(name, heads) for name in report["unexpected_keys"]}
    return _Differences(sorted(lacking), sorted(unexpected))


def _name_in_file(name: str, heads: Mapping[str, _Head]) -> str:
    return next(own for own in heads if own == name or own.endswith(f".{name}"))


def _check_not_quantized(heads: Mapping[str, _Head], unexpected: Sequence[str]) -> None:
    for name in unexpected:
        for pattern, method in _QUANTIZERS:
            if pattern.search(name):
                raise UnsupportedModel(
                    f"{heads[name].path} is quantized with {method} ({name}), which is not read; {PLAIN_WEIGHTS}"
                )
    for name, head in heads.items():
        if head.dtype not in _READ_DTYPES and not _INERT.search(name):
            raise UnsupportedModel(
                f"{head.path} has {name} as {head.dtype}: it is quantized, which is not read; {PLAIN_WEIGHTS}"
            )


def _why_unexpected(heads: Mapping[str, _Head], unexpected: Sequence[str]) -> str:
    name = unexpected[0]
    path = heads[name].path
    if "guidance_embedder." in name:
        return (
            f"{path} has weights that read guidance ({name}), and config.json beside it says that there are none; set "
            "guidance_embeds to true there"
        )
    return (
        f"{path} has {len(unexpected)} weights that config.json beside it does not ask for, and that would be left out "
        f"(such as {name}); download the checkpoint again"
    )
