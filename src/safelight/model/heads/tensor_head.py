"""What the head of a file of weights says: of each tensor its dtype, its shape, and where its bytes lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FileFormat = Literal["safetensors", "gguf"]
MAX_HEAD_BYTES = 100_000_000
"""As in the library of safetensors. No file that is one has a longer head, nor more tensors or longer names than these:
what a head claims is read within a second, and so is what its names tell.
"""
MAX_TENSORS = 32_768
MAX_NAME_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class TensorHead:
    """One tensor in a file."""

    dtype: str
    """In the words of its format: `BF16` and `F8_E4M3` of safetensors, `Q4_K` of GGUF."""
    shape: tuple[int, ...]
    """Of the numbers, however they are stored; the outermost first."""
    start: int
    """Where its bytes begin in the file."""
    stop: int

    @property
    def num_bytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class FileHead:
    """All tensors of a file by name, and what else its head says in a word or a number."""

    format: FileFormat
    tensors: Mapping[str, TensorHead]
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Raises ValueError for what is no name of a tensor: each of them may stand in a message."""
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise ValueError(f"it has a name of {len(name)} characters")
    if not name.isprintable():
        raise ValueError(f"it has a name that cannot be shown ({name!a})")
