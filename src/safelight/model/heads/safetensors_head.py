"""What the head of a safetensors file says. The library imports numpy to read it, which every command would pay for.

https://github.com/huggingface/safetensors#format: its length in 8 bytes, then JSON.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from safelight.model.heads.tensor_head import MAX_HEAD_BYTES, MAX_TENSORS, FileHead, TensorHead, check_name

DTYPE_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_MAX_DIMENSIONS = 8
_ONCE_FOR_EACH = b'"data_offsets"'
"""What each tensor has in the JSON."""


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_safetensors_head(path: Path) -> FileHead:
    """Raises OSError; ValueError or RecursionError if the file is broken or not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > size:
            raise ValueError("its head is not whole")
        if start > MAX_HEAD_BYTES:
            raise ValueError("its head is longer than that of any safetensors file")
        head = file.read(start - 8)
    num_entries = head.count(_ONCE_FOR_EACH)
    if num_entries > MAX_TENSORS:
        raise ValueError(f"it claims to have {num_entries} tensors")
    entries = msgspec.json.decode(head, type=dict[str, msgspec.Raw])
    metadata = msgspec.json.decode(entries.pop("__metadata__", b"{}"), type=dict[str, str])
    _check_names(entries, num_entries)
    tensors = {name: _place(name, msgspec.json.decode(entry, type=_Tensor), start) for name, entry in entries.items()}
    _check_whole(tensors.values(), start, size)
    return FileHead("safetensors", tensors, metadata)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor. Raises OSError; ValueError or RecursionError if the file is broken or not whole."""
    return {name: head.shape for name, head in read_safetensors_head(path).tensors.items()}


def _check_names(names: Collection[str], num_entries: int) -> None:
    for name in names:
        check_name(name)
    if num_entries > len(names):  # the others were overwritten
        raise ValueError("it has two tensors of one name")


def _place(name: str, tensor: _Tensor, start: int) -> TensorHead:
    if len(tensor.shape) > _MAX_DIMENSIONS:
        raise ValueError(f"it has {len(tensor.shape)} dimensions for {name}")
    first, last = tensor.data_offsets
    bits = DTYPE_BITS.get(tensor.dtype)
    if min((first, *tensor.shape), default=0) < 0:
        raise ValueError(f"its head makes no sense of {name}")
    if bits is not None and math.prod(tensor.shape) * bits != (last - first) * 8:
        raise ValueError(f"its head gives {name} another length than its shape has")
    return TensorHead(tensor.dtype, tensor.shape, start + first, start + last)


def _check_whole(tensors: Iterable[TensorHead], start: int, size: int) -> None:
    """One tensor begins where another ends, from the first byte to the last."""
    for tensor in sorted(tensors, key=lambda each: (each.start, each.stop)):
        if tensor.start != start or tensor.stop < start:
            raise ValueError("its weights overlap, or there are gaps between them")
        start = tensor.stop
    if start != size:
        raise ValueError("its weights are not whole")
