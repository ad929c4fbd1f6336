"""What the head of a GGUF file says: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

The `gguf` package reads it too, but makes arrays of every word of a tokenizer, and believes every length that a file
claims. Here no length is believed that the file, or reason, has no room for.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterable
from pathlib import Path

from safelight.model.heads.tensor_head import MAX_HEAD_BYTES, MAX_TENSORS, FileHead, TensorHead, check_name

MARK = b"GGUF"
VERSIONS = (2, 3)
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Number of a type -> its name, how many numbers a block has, and how many bytes."""
_MAX_VALUES = 65_536
_MAX_WORDS = 2_097_152
"""Of all arrays of texts together; a large vocabulary has 260 thousand, and twice as many merges."""
_MAX_DIMENSIONS = 4
_MAX_KEY_BYTES = 65_535
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
_CUT = "its head is not whole"
_UNKNOWN = "type "
"""What a type without a name is called, before its number: how many bytes it takes nobody knows."""

_Scalar = str | int | float | bool


def read_gguf_head(path: Path) -> FileHead:
    """Without the arrays, which are a tokenizer's. Raises OSError; ValueError if the file is broken or not whole."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _Reader(content).read()


class _Reader:
    """Reads from the beginning on, and never beyond the end."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0
        self._num_words = 0

    def read(self) -> FileHead:
        if self._take(4) != MARK:
            raise ValueError("it does not begin as a GGUF file")
        self._check_version(int(self._scalar("I")))
        num_tensors = self._count(MAX_TENSORS, "tensors")
        num_values = self._count(_MAX_VALUES, "values")
        metadata = {}
        for _ in range(num_values):
            key, value = self._text(), self._value(int(self._scalar("I")))
            if value is not None:
                metadata[key] = value
        found = [self._tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 2**20:
            raise ValueError(f"it is aligned to {alignment}")
        start = -(-self._at // alignment) * alignment
        tensors = {name: _moved(tensor, start) for name, tensor in found}
        if len(tensors) != len(found):
            raise ValueError("it has two tensors of one name")
        _check_places(tensors.values(), start, alignment, len(self._content))
        return FileHead("gguf", tensors, metadata)

    def _check_version(self, version: int) -> None:
        if version in VERSIONS:
            return
        is_big_endian = version & 0xFFFF == 0
        raise ValueError("it is for big-endian machines" if is_big_endian else f"it is of GGUF's version {version}")

    def _count(self, most: int, what: str) -> int:
        count = int(self._scalar("Q"))
        if count > most:
            raise ValueError(f"it claims to have {count} {what}")
        return count

    def _value(self, kind: int) -> _Scalar | None:
        """None: an array."""
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY:
            raise ValueError(f"it has a value of kind {kind}")
        self._skip_array()
        return None

    def _skip_array(self) -> None:
        kind, length = int(self._scalar("I")), int(self._scalar("Q"))
        if kind in _SCALARS:
            self._skip(length * struct.calcsize(_SCALARS[kind]))
            return
        if kind != _TEXT:
            raise ValueError("it has an array of arrays")
        self._num_words += length
        if self._num_words > _MAX_WORDS:
            raise ValueError(f"it claims to have {self._num_words} words")
        for _ in range(length):  # millions, so without a call for each
            if self._at + 8 > len(self._content):
                raise ValueError(_CUT)
            self._at += 8 + _LENGTH.unpack_from(self._content, self._at)[0]
        self._skip(0)

    def _tensor(self) -> tuple[str, TensorHead]:
        """With its place from the first tensor on."""
        name = self._text()
        check_name(name)
        num_dimensions = int(self._scalar("I"))
        if num_dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"it has {num_dimensions} dimensions for {name}")
        shape = tuple(int(self._scalar("Q")) for _ in range(num_dimensions))[::-1]
        number, start = int(self._scalar("I")), int(self._scalar("Q"))
        dtype, block, block_bytes = TYPES.get(number, (f"{_UNKNOWN}{number}", 1, 0))
        row = shape[-1] if shape else 1
        if row % block:
            raise ValueError(f"it has rows of {row} for {name}, which are no whole blocks of {dtype}")
        return name, TensorHead(dtype, shape, start, start + math.prod(shape) // block * block_bytes)

    def _text(self) -> str:
        length = int(self._scalar("Q"))
        if length > _MAX_KEY_BYTES:  # a text of prose, such as a chat template or a licence
            self._skip(length)
            return ""
        return self._take(length).decode("utf-8", "replace")

    def _scalar(self, code: str) -> _Scalar:
        value: _Scalar = struct.unpack("<" + code, self._take(struct.calcsize(code)))[0]
        return value

    def _take(self, length: int) -> bytes:
        self._skip(length)
        return self._content[self._at - length : self._at]

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > len(self._content):
            raise ValueError(_CUT)
        if self._at > MAX_HEAD_BYTES:
            raise ValueError("its head is longer than that of any GGUF file")


def _moved(tensor: TensorHead, start: int) -> TensorHead:
    return TensorHead(tensor.dtype, tensor.shape, start + tensor.start, start + tensor.stop)


def _check_places(tensors: Iterable[TensorHead], start: int, alignment: int, size: int) -> None:
    """Each begins where the one before it ends, or as soon after as it may, from the first byte on."""
    end, is_longer = 0, False
    for tensor in sorted(tensors, key=lambda each: (each.start, each.stop)):
        if tensor.start < start or (tensor.start > start and not is_longer):
            raise ValueError("its weights overlap, or there are gaps between them")
        end, is_longer = tensor.stop, tensor.dtype.startswith(_UNKNOWN)
        start = -(-end // alignment) * alignment
    if end > size:
        raise ValueError("its weights are not whole")
