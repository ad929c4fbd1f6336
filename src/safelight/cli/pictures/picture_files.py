"""Pictures that a command is given: their bytes, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path

from safelight.errors import InvalidRequest
from safelight.picture.files import Picture, decode


def read_file(path: Path) -> bytes:
    """Raises InvalidRequest naming the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None


def read_picture(path: Path, content: bytes) -> Picture:
    """The picture in a file that was read. Raises InvalidRequest naming it."""
    try:
        return decode(content)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path} {error.message}") from None


def no_recipe(path: Path) -> InvalidRequest:
    return InvalidRequest(f"{path} carries no recipe: Safelight did not make it, or something has removed it since")
