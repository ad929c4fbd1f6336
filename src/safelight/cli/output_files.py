"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from safelight.errors import InvalidRequest

PARTIAL = ".*.partial"
"""What a process that was killed in the middle of writing leaves behind."""


def write_whole(path: Path, content: bytes | None) -> None:
    """Write a whole file or none. Without content, only find out whether it could be written. Raises InvalidRequest."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content or b"")
        if content is None:
            partial.unlink()
        else:
            partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", field="output") from None
