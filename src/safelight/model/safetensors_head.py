"""What the head of a safetensors file says. The library imports numpy to read it, which every command would pay for.

https://github.com/huggingface/safetensors#format: its length in 8 bytes, then JSON.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class _Tensor(msgspec.Struct):
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor. Raises OSError; ValueError or RecursionError if the file is broken or not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > size:
            raise ValueError("its head is not whole")
        entries = msgspec.json.decode(file.read(start - 8), type=dict[str, msgspec.Raw])
    entries.pop("__metadata__", None)
    tensors = {name: msgspec.json.decode(entry, type=_Tensor) for name, entry in entries.items()}
    if start + max((each.data_offsets[1] for each in tensors.values()), default=0) != size:
        raise ValueError("its weights are not whole")
    return {name: each.shape for name, each in tensors.items()}
