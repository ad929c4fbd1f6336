"""ICC profiles as cameras, phones and programs embed them: a matrix and a curve, in version 2 and in version 4."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

SRGB = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)]
DISPLAY_P3 = [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)]
ADOBE_RGB = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
PRO_PHOTO = [(0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)]
"""Red, green and blue as XYZ relative to D50, as the profiles of these names have them."""
SRGB_CURVE = None


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def profile(colorants: Any, exponent: float | None, *, version: int = 4, space: bytes = b"RGB ") -> bytes:
    """With one curve for all; `exponent` None is sRGB's curve (version 4 only)."""
    if version == 2:
        assert exponent is not None
        curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256)) + bytes(2)
    elif exponent is None:
        curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(2.4, 0.94787, 0.05213, 0.07739, 0.04045)
    else:
        curve = b"para" + bytes(4) + struct.pack(">HH", 0, 0) + fixed(exponent)
    white = b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79), b"wtpt": white}
    if space == b"RGB ":
        tags |= {
            name: b"XYZ " + bytes(4) + fixed(*xyz)
            for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True)
        }
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags |= {b"kTRC": curve}
    table, data, position = b"", b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += name + struct.pack(">II", position + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s28x", position + len(data), version << 24, b"mntr", space, b"XYZ ", b"acsp")
    return head + fixed(0.9642, 1.0, 0.8249) + bytes(48) + struct.pack(">I", len(tags)) + table + data


def to_srgb(pixels: np.ndarray, colorants: Any, exponent: float | None) -> np.ndarray:
    """What a screen of sRGB shows of pixels (uint8) in that space: by the definition, in floating point."""
    light = pixels / 255
    light = (
        np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4) if not exponent else light**exponent
    )
    shown = np.clip(light @ np.array(colorants) @ np.linalg.inv(np.array(SRGB)), 0, 1)
    values = np.where(shown <= 0.0031308, shown * 12.92, 1.055 * shown ** (1 / 2.4) - 0.055)
    return np.asarray((values * 255).round())
