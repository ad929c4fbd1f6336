"""Reading pictures off the wire."""

from __future__ import annotations

import base64
import io

from PIL import Image

MAGIC = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF"}


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def from_base64(text: str) -> Image.Image:
    return opened(base64.b64decode(text, validate=True))
