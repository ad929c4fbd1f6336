"""Files inside JSON: base64, bare or as a data URL. Other URLs are refused, since nothing is fetched for a client."""

from __future__ import annotations

import base64
import binascii

from safelight.errors import InvalidRequest

PIECE_CHARACTERS = 1024 * 1024
"""What is decoded in one step, in which no other thread runs; a multiple of 4."""


def from_data_url(url: str, *, field: str) -> bytes:
    """The bytes of `data:image/png;base64,...`. Raises InvalidRequest."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise InvalidRequest(f"{field} must be a data URL, such as data:image/png;base64,...", field=field)
    return from_base64(data, field=field)


def from_base64(text: str, *, field: str) -> bytes:
    """The bytes of a base64 text. Raises InvalidRequest."""
    starts = range(0, len(text), PIECE_CHARACTERS)
    try:
        if 0 <= text.find("=") < len(text) - 2:
            raise binascii.Error("padding before the end")
        return b"".join(base64.b64decode(text[start : start + PIECE_CHARACTERS], validate=True) for start in starts)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{field} is no base64", field=field) from None
