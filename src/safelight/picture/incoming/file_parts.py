"""How many parts the file of an image may have: decoders pay for each of them, however few bytes it takes."""

from __future__ import annotations

import re

from safelight.errors import InvalidRequest

MAX_SCANS = 100
"""Of a JPEG: each is a pass over all its pixels, and encoders write about ten."""
MAX_SEGMENTS = 4096
"""Of a JPEG, the scans among them; half a megabyte of metadata takes eight."""
MAX_CHUNKS = 65_536
"""Of a PNG; encoders write chunks of 4 KiB and more."""
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")
"""With a length behind it, or the end (ITU-T T.81, table B.1); restarts are among the pixels."""
_SCAN, _END = b"\xda", b"\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_PIECE_BYTES = 1024 * 1024
"""Searched in one step, in which no other thread runs."""


def check_parts(content: bytes, *, field: str) -> None:
    """Before any of it is decoded. Raises InvalidRequest."""
    if content.startswith(b"\xff\xd8"):
        _check_jpeg(content, field)
    elif content.startswith(_PNG):
        _check_png(content, field)


def _check_jpeg(content: bytes, field: str) -> None:
    num_segments = num_scans = 0
    position = 2
    while (found := _next_marker(content, position)) and found[1] != _END:
        num_segments += 1
        num_scans += found[1] == _SCAN
        if num_scans > MAX_SCANS or num_segments > MAX_SEGMENTS:
            raise InvalidRequest(
                f"{field} is a JPEG of more than {MAX_SCANS} scans or {MAX_SEGMENTS} segments; save it anew, or as PNG",
                field=field,
            )
        position = found.end() + int.from_bytes(content[found.end() : found.end() + 2])


def _next_marker(content: bytes, position: int) -> re.Match[bytes] | None:
    pieces = range(position, len(content), _PIECE_BYTES)
    return next(filter(None, (_MARKER.search(content, start, start + _PIECE_BYTES + 1) for start in pieces)), None)


def _check_png(content: bytes, field: str) -> None:
    position, num_chunks = len(_PNG), 0
    while position < len(content):
        num_chunks += 1
        if num_chunks > MAX_CHUNKS:
            raise InvalidRequest(f"{field} is a PNG of more than {MAX_CHUNKS} chunks; save it anew", field=field)
        if content[position + 4 : position + 8] == b"IEND":
            return  # what follows is nobody's
        position += 12 + int.from_bytes(content[position : position + 4])
