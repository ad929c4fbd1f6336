"""The weights of a component that bitsandbytes or torchao quantized, as tensors of its files: nothing is converted.

Only scales are computed: in fp32, where bitsandbytes has quantized them again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from safelight.engine.weights.files import FileTensor, open_tensors
from safelight.engine.weights.stored_weights import NF4_LEVELS
from safelight.errors import UnsupportedModel
from safelight.model.heads.file_head import read_head
from safelight.model.heads.library_formats import Library, Nested, PackedWeight, find_packed
from safelight.model.heads.own_format import NF4
from safelight.model.heads.quantizer_marks import INSTEAD, Scales


def open_packed(paths: list[Path], library: Library) -> dict[str, FileTensor]:
    """All weights of a component's files, mapped. Raises UnsupportedModel, or OSError."""
    heads = {path: read_head(path) for path in paths}
    packed = find_packed(heads, library)
    raw = {
        name: tensor
        for path, head in heads.items()
        for name, tensor in open_tensors(path, head, Scales({}, frozenset()), head.tensors).items()
    }
    made = {name: _made(weight, raw) for name, weight in packed.weights.items()}
    return {name: raw[name] for name in packed.plain} | made


def _made(weight: PackedWeight, raw: Mapping[str, FileTensor]) -> FileTensor:
    place, values = raw[weight.numbers].place, raw[weight.numbers].values
    if weight.zeros is not None and bool(raw[weight.zeros].values.any()):
        raise UnsupportedModel(f"{place} has zeros that are not 0 (asymmetric), which is not read; {INSTEAD}")
    if weight.dtype == NF4:
        return _nf4(weight, raw, place)
    scale = raw[weight.scale].values.to(torch.float32).reshape(-1, 1) / weight.divisor
    return FileTensor(place=place, values=values, shape=weight.shape, dtype=weight.dtype, scale=scale)


def _nf4(weight: PackedWeight, raw: Mapping[str, FileTensor], place: str) -> FileTensor:
    assert weight.levels is not None, "every nf4 weight has them"
    if not torch.allclose(raw[weight.levels].values, NF4_LEVELS, rtol=0, atol=1e-6):
        raise UnsupportedModel(f"{place} has other levels than nf4's, which is not read; {INSTEAD}")
    pairs, scale = raw[weight.numbers].values.reshape(-1), raw[weight.scale].values
    if weight.nested is not None:
        scale = _unnested(scale, weight.nested, raw)
    rows, columns = weight.shape
    if columns % weight.block == 0 and columns % 2 == 0:
        pairs, scale = pairs.reshape(rows, columns // 2), scale.reshape(rows, columns // weight.block)
        return FileTensor(place=place, values=pairs, shape=weight.shape, dtype=NF4, scale=scale)
    return FileTensor(place=place, values=_run_on(pairs, scale, weight), shape=weight.shape, dtype="F32")


def _unnested(scale: Tensor, nested: Nested, raw: Mapping[str, FileTensor]) -> Tensor:
    greatest = raw[nested.greatest].values.repeat_interleave(nested.block)[: len(scale)]
    return raw[nested.levels].values[scale.int()] * greatest + nested.offset


def _run_on(pairs: Tensor, scale: Tensor, weight: PackedWeight) -> Tensor:
    """The numbers of a matrix whose blocks run on from a row to the next: such are small, and kept in fp32."""
    levels = NF4_LEVELS[torch.stack([pairs >> 4, pairs & 15], dim=1).reshape(-1).int()]
    numbers = levels[: math.prod(weight.shape)]
    return (numbers * scale.repeat_interleave(weight.block)[: len(numbers)]).reshape(weight.shape)
