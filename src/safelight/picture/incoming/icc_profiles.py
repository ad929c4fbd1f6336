"""ICC profiles of RGB spaces that files name without having one (ISO 15076-1: three colorants, and one curve)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

_D50 = (0.9642, 1.0, 0.8249)
_COLORANTS = (b"rXYZ", b"gXYZ", b"bXYZ")
_CURVES = (b"rTRC", b"gTRC", b"bTRC")
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""Exponent and coefficients of IEC 61966-2-1, as a parametric curve of type 3 has them."""


@dataclass(frozen=True, slots=True)
class Primaries:
    """The x and y of CIE 1931."""

    white: tuple[float, float]
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]


def build_profile(primaries: Primaries, exponent: float | None) -> bytes:
    """The profile of an RGB space; without an exponent with sRGB's curve. Raises ValueError, and what numpy raises."""
    pairs = (primaries.red, primaries.green, primaries.blue)
    columns = np.array([_xyz(*pair) for pair in pairs]).T
    columns = columns * np.linalg.solve(columns, _xyz(*primaries.white))
    columns = _adaptation(_xyz(*primaries.white)) @ columns
    parameters = _SRGB_CURVE if exponent is None else (exponent,)
    curve = b"para" + bytes(4) + struct.pack(">HH", 3 if exponent is None else 0, 0) + _fixed(*parameters)
    tags = {name: b"XYZ " + bytes(4) + _fixed(*column) for name, column in zip(_COLORANTS, columns.T, strict=True)}
    tags |= {b"wtpt": b"XYZ " + bytes(4) + _fixed(*_D50)}
    position = 128 + 4 + 12 * (len(tags) + len(_CURVES))
    table, data = b"", b""
    for names, tag in [((name,), tag) for name, tag in tags.items()] + [(_CURVES, curve)]:
        table += b"".join(name + struct.pack(">II", position + len(data), len(tag)) for name in names)
        data += tag
    head = struct.pack(">I4xI4s4s4s12x4s28x", position + len(data), 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head + _fixed(*_D50) + bytes(48) + struct.pack(">I", len(tags) + len(_CURVES)) + table + data


def _xyz(x: float, y: float) -> np.ndarray:
    if not 0 < y <= 1:
        raise ValueError("its chromaticities make no sense")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _adaptation(white: np.ndarray) -> np.ndarray:
    """From a white to D50, which ICC profiles are relative to."""
    scale = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD)


def _fixed(*numbers: float) -> bytes:
    """s15Fixed16Number."""
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))
