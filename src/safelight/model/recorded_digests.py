"""Digests of large files beside them, so that what names a picture's model is not read again at every start.

A digest holds for a file of the size and the time of change that it had then, as git and make believe them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

DIGESTS = "safelight-digests.json"


def sha256_of(path: Path) -> bytes:
    """From beside the file if it is there and holds, else of what is in it. Raises OSError."""
    return _recorded(path) or _read(path)


def record_digests(place: Path) -> None:
    """Of the weights in a folder. Raises OSError."""
    digests = {path.name: [*_state(path), _read(path).hex()] for path in sorted(place.glob("*.safetensors"))}
    (place / DIGESTS).write_text(json.dumps(digests, indent=2))


def _recorded(path: Path) -> bytes | None:
    try:
        *state, digest = json.loads((path.parent / DIGESTS).read_bytes())[path.name]
        return bytes.fromhex(digest) if state == _state(path) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
