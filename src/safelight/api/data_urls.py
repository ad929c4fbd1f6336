"""Files inside JSON: base64, bare or as a data URL. Other URLs are refused, since nothing is fetched for a client."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote

from safelight.errors import InvalidRequest

_LINE_BREAK = re.compile(rb"[ \t]*[\r\n]+[ \t]*")
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
    try:
        letters = _LINE_BREAK.sub(b"", text.strip().encode("ascii")).translate(_FROM_URL_SAFE)
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{field} is no base64", field=field) from None
