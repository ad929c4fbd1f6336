"""The tensors of a file as they lie there: mapped, never copied, in whatever format; and rows of them.

GGUF's types of blocks, scaled fp8 and plain numbers look alike from here on: a parameter is a `FileTensor`, and so is
any part of its rows. What multiplies them is in `stored_weights`.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions
from gguf import GGMLQuantizationType
from torch import Tensor

from safelight.engine.weights.stored_weights import Nf4Weight
from safelight.errors import ModelLoadError
from safelight.model.heads.file_head import read_head
from safelight.model.heads.own_format import NF4
from safelight.model.heads.quantizer_marks import Scales, find_scales
from safelight.model.heads.tensor_head import FileHead, TensorHead

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_FIRST_NAN = {torch.float8_e4m3fn: 0x7F, torch.float8_e5m2: 0x7C}
"""Without the sign: the first byte that is no finite number; none that comes after it is one either."""
_CHECKED_AT_ONCE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FileTensor:
    """A tensor of a file, or some of its rows."""

    place: str
    """The file and the name in it, for messages."""
    values: Tensor
    """A view of the file, which may not be written to: numbers in `shape`; blocks as uint8 (rows, bytes of a row).

    Of nf4 pairs as uint8 (rows, half of a row's numbers).
    """
    shape: tuple[int, ...]
    """Of the numbers."""
    dtype: str
    """As the file's format calls it: `BF16`, `F8_E4M3`, `Q4_K`."""
    scale: Tensor | None = None
    """fp32, (1, 1) or (rows, 1): the values are multiplied by it. Of nf4 fp16 or fp32, (rows, blocks of a row)."""
    quant_type: GGMLQuantizationType | None = None
    """Of GGUF's blocks; None for numbers."""

    @property
    def is_nf4(self) -> bool:
        return self.dtype == NF4

    @property
    def num_bytes(self) -> int:
        return self.values.numel() * self.values.element_size()

    def rows(self, ranges: Sequence[tuple[int, int]]) -> FileTensor:
        """Some of the rows in the order of `ranges`, as they are stored; several ranges are copied together."""
        values, scale = self.values, self.scale
        if scale is not None and len(scale) > 1:
            scale = _pick(scale, ranges)
        picked = _pick(values, ranges)
        return replace(self, values=picked, scale=scale, shape=(len(picked), *self.shape[1:]))

    def reshaped(self, shape: tuple[int, ...]) -> FileTensor:
        """The same rows of the same numbers, in another shape."""
        values = self.values if self.quant_type is not None else self.values.reshape(shape)
        return replace(self, values=values, shape=shape)

    def numbers(self, dtype: torch.dtype) -> Tensor:
        """What it stands for. It may be a view of the file: clone it before writing to it."""
        if self.is_nf4:
            assert self.scale is not None, "its head has been checked"
            return Nf4Weight(self.values, self.scale).rows(0, len(self.values), dtype)
        if self.quant_type is not None:
            block, block_bytes = GGML_QUANT_SIZES[self.quant_type]
            blocks = self.values.reshape(-1, block_bytes)
            numbers: Tensor = dequantize_functions[self.quant_type](blocks, block, block_bytes, torch.float32)
            return numbers.reshape(self.shape).to(dtype)
        if self.scale is None:
            return self.values.to(dtype)
        scale = self.scale.reshape(-1, *[1] * (len(self.shape) - 1))
        return (self.values.to(torch.float32) * scale).to(dtype)

    def check_finite(self) -> None:
        """Raises ModelLoadError for fp8 that is not a number: its bytes are read as if there were none."""
        first = _FIRST_NAN.get(self.values.dtype)
        if first is None:
            return
        for part in torch.split(self.values.view(torch.uint8).reshape(-1), _CHECKED_AT_ONCE):
            if int((part & 0x7F).max()) >= first:
                raise ModelLoadError(f"{self.place} has numbers that are none (nan); download the file again")


def open_tensors(path: Path, head: FileHead, scales: Scales, names: Collection[str]) -> dict[str, FileTensor]:
    """The tensors of those names, mapped. Raises OSError, or ModelLoadError for one whose numbers cannot be read."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    beside = {scales.of[name] for name in names if name in scales.of}
    mapped = {name: _map(content, path, name, head) for name in {*names, *beside}}
    return {name: replace(mapped[name], scale=_scale(mapped, name, scales.of.get(name))) for name in names}


def open_file(path: Path) -> dict[str, FileTensor]:
    """All weights of a file, mapped, each with its scale. Raises UnsupportedModel or ModelLoadError."""
    head = read_head(path)
    scales = find_scales(path, head)
    return open_tensors(path, head, scales, head.tensors.keys() - scales.names)


def _map(content: mmap.mmap, path: Path, name: str, head: FileHead) -> FileTensor:
    tensor = head.tensors[name]
    place = f"{path}: {name}"
    if tensor.dtype == NF4:
        pairs = _view(content, tensor, torch.uint8).reshape(tensor.shape[0], -1)
        return FileTensor(place=place, values=pairs, shape=tensor.shape, dtype=tensor.dtype)
    if tensor.dtype in _DTYPES:
        values = _view(content, tensor, _DTYPES[tensor.dtype]).reshape(tensor.shape)
        return FileTensor(place=place, values=values, shape=tensor.shape, dtype=tensor.dtype)
    quant_type = GGMLQuantizationType.__members__.get(tensor.dtype) if head.format == "gguf" else None
    if quant_type not in dequantize_functions:
        raise ModelLoadError(f"{place} is stored as {tensor.dtype}, which is not read; use another file")
    block, block_bytes = GGML_QUANT_SIZES[quant_type]
    blocks = _view(content, tensor, torch.uint8).reshape(-1, tensor.shape[-1] // block * block_bytes)
    return FileTensor(place=place, values=blocks, shape=tensor.shape, dtype=tensor.dtype, quant_type=quant_type)


def _view(content: mmap.mmap, tensor: TensorHead, dtype: torch.dtype) -> Tensor:
    if tensor.num_bytes == 0:
        return torch.empty(0, dtype=dtype)
    count = tensor.num_bytes // dtype.itemsize
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        return torch.frombuffer(content, dtype=dtype, count=count, offset=tensor.start)


def _scale(tensors: Mapping[str, FileTensor], weight: str, name: str | None) -> Tensor | None:
    if name is None:
        return None
    values = tensors[name].values
    return values if tensors[weight].is_nf4 else values.to(torch.float32).reshape(-1, 1)


def _pick(values: Tensor, ranges: Sequence[tuple[int, int]]) -> Tensor:
    parts = [values[start:stop] for start, stop in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
