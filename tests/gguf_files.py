"""GGUF files, written from the format's definition: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

The blocks of K-quants, which the `gguf` package reads and cannot write, are packed as ggml-quants.c unpacks them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
ALIGNMENT = 32


def write_gguf(
    path: Path,
    tensors: Mapping[str, Floats],
    types: Callable[[str], str] = lambda _: "F32",
    *,
    architecture: str = "flux",
    more: bytes = b"",
    num_more: int = 0,
) -> Path:
    """Each tensor in the type that `types` says of its name; `more` are values of the head as they stand there."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1 + num_more)
    head += _text("general.architecture") + struct.pack("<I", 8) + _text(architecture) + more
    content = b""
    for name, values in tensors.items():
        kind = gguf.GGMLQuantizationType[types(name)]
        head += _text(name) + struct.pack("<I", values.ndim)
        head += struct.pack(f"<{values.ndim}Q", *reversed(values.shape)) + struct.pack("<IQ", kind, len(content))
        content += _padded(packed(values, kind.name))
    path.write_bytes(_padded(head) + content)
    return path


def packed(values: Floats, kind: str) -> bytes:
    """The values as GGUF stores them in that type."""
    if kind in _K_QUANTS:
        blocks = values.reshape(-1, 256).astype(np.float32)
        return b"".join(_K_QUANTS[kind](block) for block in blocks)
    return gguf.quantize(np.ascontiguousarray(values, dtype=np.float32), gguf.GGMLQuantizationType[kind]).tobytes()


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % ALIGNMENT)


def _q6_k(block: Floats) -> bytes:
    """x = d * scale * (q - 32): q of six bits, scale an int8 for each 16."""
    groups = block.reshape(16, 16)
    wanted = np.abs(groups).max(axis=1) / 31
    d = np.float16(wanted.max() / 127 or 1)
    scales = np.clip(np.round(wanted / np.float32(d)), 1, 127).astype(np.int8)
    steps = np.float32(d) * scales.astype(np.float32)[:, None]
    q = (np.clip(np.round(groups / steps), -32, 31) + 32).astype(np.uint8).reshape(2, 4, 32)
    low = np.concatenate([(q[:, 0] & 15) | (q[:, 2] & 15) << 4, (q[:, 1] & 15) | (q[:, 3] & 15) << 4], axis=1)
    high = (q[:, 0] >> 4) | (q[:, 1] >> 4) << 2 | (q[:, 2] >> 4) << 4 | (q[:, 3] >> 4) << 6
    return low.tobytes() + high.tobytes() + scales.tobytes() + d.tobytes()


def _q4_k(block: Floats) -> bytes:
    """x = d * scale * q - dmin * least: q of four bits, scale and least of six bits for each 32."""
    head, q = _scaled_from_least(block, 15)
    pairs = q.reshape(4, 2, 32)
    return head + (pairs[:, 0] | pairs[:, 1] << 4).tobytes()


def _q5_k(block: Floats) -> bytes:
    """As Q4_K with a fifth bit for each number: bit i of byte j is that of number j of the i-th 32."""
    head, q = _scaled_from_least(block, 31)
    pairs = q.reshape(4, 2, 32)
    high = np.zeros(32, np.uint8)
    for number, group in enumerate(q.reshape(8, 32)):
        high |= (group >> 4) << number
    return head + high.tobytes() + ((pairs[:, 0] & 15) | (pairs[:, 1] & 15) << 4).tobytes()


def _scaled_from_least(block: Floats, greatest: int) -> tuple[bytes, Bytes]:
    groups = block.reshape(8, 32)
    wanted_least = np.maximum(-groups.min(axis=1), 0)
    wanted = np.maximum(groups.max(axis=1) + wanted_least, 1e-8) / greatest
    d, dmin = np.float16(wanted.max() / 63), np.float16(wanted_least.max() / 63 or 1)
    scales = np.clip(np.round(wanted / np.float32(d)), 1, 63).astype(np.uint8)
    least = np.clip(np.round(wanted_least / np.float32(dmin)), 0, 63).astype(np.uint8)
    steps, offsets = np.float32(d) * scales, np.float32(dmin) * least
    q = np.clip(np.round((groups + offsets[:, None]) / steps[:, None]), 0, greatest).astype(np.uint8)
    first = scales[:4] | (scales[4:] >> 4) << 6
    second = least[:4] | (least[4:] >> 4) << 6
    third = (scales[4:] & 15) | (least[4:] & 15) << 4
    return d.tobytes() + dmin.tobytes() + first.tobytes() + second.tobytes() + third.tobytes(), q


_K_QUANTS: Mapping[str, Callable[[Floats], bytes]] = {"Q6_K": _q6_k, "Q5_K": _q5_k, "Q4_K": _q4_k}
