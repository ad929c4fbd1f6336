"""Files inside JSON: base64, bare or as a data URL. Other URLs are refused, since nothing is fetched for a client."""

from __future__ import annotations

import base64
import binascii
import re

from safelight.errors import InvalidRequest

PIECE_CHARACTERS = 1024 * 1024
"""What is decoded in one step, in which no other thread runs; a multiple of 4."""
MAX_HEAD_CHARACTERS = 256
"""Of a data URL, before its comma; looking into it takes time that grows faster than it."""
_ESCAPED = {"%2B": "+", "%2F": "/", "%3D": "=", "%0D": "\r", "%0A": "\n", "%09": "\t", "%20": " "}
"""All of base64 and its lines that URLs may not have as it is."""
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def from_data_url(url: str, *, field: str) -> bytes:
    """The bytes of `data:image/png;base64,...`; their type is what they begin with. Raises InvalidRequest."""
    head, comma, data = url.partition(",")
    is_base64 = len(head) <= MAX_HEAD_CHARACTERS and re.fullmatch(r"data:[^,]*;\s*base64\s*", head, re.IGNORECASE)
    if not comma or not is_base64:
        raise InvalidRequest(f"{field} must be a data URL, such as data:image/png;base64,...", field=field)
    return from_base64(_unescaped(data) if "%" in data else data, field=field)


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


def _unescaped(data: str) -> str:
    """Without percent signs, unless they are out of place: `unquote` takes 190 bytes of memory for each of them."""
    pieces, start = [], 0
    while start < len(data):
        end = start + PIECE_CHARACTERS
        if (escape := data.rfind("%", end - 2, end)) >= 0:
            end = escape + len("%2B")
        piece, start = data[start:end], end
        for escaped, letter in _ESCAPED.items():
            piece = piece.replace(escaped, letter).replace(escaped.lower(), letter)
        pieces.append(piece)
    return "".join(pieces)
