"""Files inside JSON: base64, bare or as a data URL. Other URLs are refused, since nothing is fetched for a client."""

from __future__ import annotations

import base64
import binascii

from safelight.errors import InvalidRequest


def from_data_url(url: str, *, field: str) -> bytes:
    """The bytes of `data:image/png;base64,...`. Raises InvalidRequest."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise InvalidRequest(f"{field} must be a data URL, such as data:image/png;base64,...", field=field)
    return from_base64(data, field=field)


def from_base64(text: str, *, field: str) -> bytes:
    """The bytes of a base64 text. Raises InvalidRequest."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{field} is no base64", field=field) from None
