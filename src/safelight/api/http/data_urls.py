"""Files inside JSON: base64, bare or as a data URL. Other URLs are refused, since nothing is fetched for a client."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote

from safelight.errors import InvalidRequest

PIECE_CHARACTERS = 1024 * 1024
"""What is decoded in one step, in which no other thread runs; a multiple of 4."""
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def from_data_url(url: str, *, field: str) -> bytes:
    """The bytes of `data:image/png;base64,...`; their type is what they begin with. Raises InvalidRequest."""
    head, comma, data = url.partition(",")
    if not comma or not re.fullmatch(r"data:[^,]*;\s*base64\s*", head, re.IGNORECASE):
        raise InvalidRequest(f"{field} must be a data URL, such as data:image/png;base64,...", field=field)
    return from_base64(unquote(data) if "%" in data else data, field=field)


def from_base64(text: str, *, field: str) -> bytes:
    """The bytes of a base64 text, in either alphabet of RFC 4648, in lines or in one, padded or not.

    Raises InvalidRequest.
    """
    letters = text.strip()
    dropped = b" \t\r\n" if "\n" in letters or "\r" in letters else b""
    try:
        if 0 <= letters.find("=") < len(letters) - 2:
            raise binascii.Error("padding before the end")
        decoded, rest = [], b""
        for start in range(0, len(letters), PIECE_CHARACTERS):
            piece = letters[start : start + PIECE_CHARACTERS].encode("ascii")
            rest += piece.translate(_FROM_URL_SAFE, dropped)
            num_whole = len(rest) // 4 * 4
            decoded.append(base64.b64decode(rest[:num_whole], validate=True))
            rest = rest[num_whole:]
        decoded.append(base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True))
        return b"".join(decoded)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{field} is no base64", field=field) from None
