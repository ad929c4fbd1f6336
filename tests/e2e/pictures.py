"""Pictures as the tests look at them: fully read, with no file left open."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image


def open_picture(source: Path | bytes) -> Image.Image:
    """The decoded picture in a file or in bytes."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    picture = Image.open(BytesIO(content))
    picture.load()
    return picture
