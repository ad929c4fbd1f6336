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
        return _K_QUANTS[kind](values.reshape(-1, 256).astype(np.float32)).tobytes()
    stored: np.ndarray = gguf.quantize(np.ascontiguousarray(values, dtype=np.float32), gguf.GGMLQuantizationType[kind])
    return stored.tobytes()


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % ALIGNMENT)


def _q6_k(blocks: Floats) -> Bytes:
    """x = d * scale * (q - 32): q of six bits, scale an int8 for each 16."""
    groups = blocks.reshape(-1, 16, 16)
    wanted = np.abs(groups).max(axis=2) / 31
    d = _least_one(wanted.max(axis=1) / 127)
    scales = np.clip(np.round(wanted / d.astype(np.float32)), 1, 127).astype(np.int8)
    steps = d.astype(np.float32) * scales
    q = (np.clip(np.round(groups / steps[..., None]), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    q0, q1, q2, q3 = (q[:, :, number] for number in range(4))
    low = np.concatenate([(q0 & 15) | (q2 & 15) << 4, (q1 & 15) | (q3 & 15) << 4], axis=2)
    high = (q0 >> 4) | (q1 >> 4) << 2 | (q2 >> 4) << 4 | (q3 >> 4) << 6
    return _side_by_side(low, high, scales, d)


def _q4_k(blocks: Floats) -> Bytes:
    """x = d * scale * q - dmin * least: q of four bits, scale and least of six bits for each 32."""
    head, q = _scaled_from_least(blocks, 15)
    pairs = q.reshape(-1, 4, 2, 32)
    return _side_by_side(head, pairs[:, :, 0] | pairs[:, :, 1] << 4)


def _q5_k(blocks: Floats) -> Bytes:
    """As Q4_K with a fifth bit for each number: bit i of byte j is that of number j of the i-th 32."""
    head, q = _scaled_from_least(blocks, 31)
    bits = (q >> 4) << np.arange(8, dtype=np.uint8)[:, None]
    pairs = q.reshape(-1, 4, 2, 32)
    low = (pairs[:, :, 0] & 15) | (pairs[:, :, 1] & 15) << 4
    return _side_by_side(head, np.bitwise_or.reduce(bits, axis=1), low)


def _scaled_from_least(blocks: Floats, greatest: int) -> tuple[Bytes, Bytes]:
    """What begins a block, and q as (blocks, 8, 32)."""
    groups = blocks.reshape(-1, 8, 32)
    wanted_least = np.maximum(-groups.min(axis=2), 0)
    wanted = np.maximum(groups.max(axis=2) + wanted_least, 1e-8) / greatest
    d, dmin = _least_one(wanted.max(axis=1) / 63), _least_one(wanted_least.max(axis=1) / 63)
    scales = np.clip(np.round(wanted / d.astype(np.float32)), 1, 63).astype(np.uint8)
    least = np.clip(np.round(wanted_least / dmin.astype(np.float32)), 0, 63).astype(np.uint8)
    steps, offsets = d.astype(np.float32) * scales, dmin.astype(np.float32) * least
    q = np.clip(np.round((groups + offsets[..., None]) / steps[..., None]), 0, greatest).astype(np.uint8)
    first = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    second = least[:, :4] | (least[:, 4:] >> 4) << 6
    third = (scales[:, 4:] & 15) | (least[:, 4:] & 15) << 4
    return _side_by_side(d, dmin, first, second, third), q


def _least_one(scales: Floats) -> npt.NDArray[np.float16]:
    """One for each block, (blocks, 1); 1 where all is zero."""
    return np.where(scales > 0, scales, 1).astype(np.float16)[:, None]


def _side_by_side(*parts: np.ndarray) -> Bytes:
    """The bytes of each block's parts, one after another."""
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in parts], axis=1)


_K_QUANTS: Mapping[str, Callable[[Floats], Bytes]] = {"Q6_K": _q6_k, "Q5_K": _q5_k, "Q4_K": _q4_k}
