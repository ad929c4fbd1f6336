"""An open LoRA file: the names, sizes and kinds of its tensors, known before any is read, and the tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
"""safetensors' names of the kinds of numbers that factors are made of."""
_WHOLE = frozenset({"I64", "I32", "I16", "I8", "U8", "BOOL"})
_BEGINNINGS = {
    b"\x80": "a pickle, which can run code when it is read; convert it to safetensors",
    b"PK": "a zip archive, as PyTorch's pickles are, which can run code when they are read; convert it to safetensors",
    b"GGUF": "a GGUF file; LoRAs are read from safetensors",
}


@dataclass(frozen=True, slots=True)
class LoraTensors:
    """What a file holds, by the names that stand in it."""

    shapes: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, str]
    """safetensors' name of what each is made of."""
    metadata: Mapping[str, str]
    _file: Any

    def read(self, key: str) -> Tensor:
        """In fp32 at least: fp8 knows no arithmetic."""
        tensor: Tensor = self._file.get_tensor(key)
        return tensor if tensor.dtype == torch.float64 else tensor.float()

    def is_zero(self, key: str) -> bool:
        """Whether nothing but zeros is in it, or nothing at all. What cannot be looked at is not."""
        if self.kinds[key] not in FLOATS | _WHOLE:
            return False
        return not bool(self.read(key).any())

    def number(self, key: str) -> float | None:
        """The number that a tensor is; None if it is none."""
        if self.kinds[key] not in FLOATS | _WHOLE or prod(self.shapes[key]) != 1:
            return None
        return float(self.read(key).item())


@contextmanager
def open_lora_file(file: Path) -> Iterator[LoraTensors]:
    """Raises OSError, and safetensors' own SafetensorError for a file that is none."""
    with safe_open(file, framework="pt") as opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118  it is no mapping
        yield LoraTensors(
            shapes={key: tuple(each.get_shape()) for key, each in slices.items()},
            kinds={key: str(each.get_dtype()) for key, each in slices.items()},
            metadata=opened.metadata() or {},
            _file=opened,
        )


def name_content(file: Path) -> str | None:
    """What a file that is no safetensors is, by its first bytes; None if they are not known."""
    try:
        with file.open("rb") as content:
            start = content.read(4)
    except OSError:
        return None
    return next((told for beginning, told in _BEGINNINGS.items() if start.startswith(beginning)), None)
