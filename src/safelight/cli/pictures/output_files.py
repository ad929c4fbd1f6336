"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from safelight.errors import InvalidRequest

PARTIAL = ".*.partial"
"""What a process that was killed in the middle of writing leaves behind."""


def write_whole(path: Path, content: bytes | None) -> None:
    """Write a whole file or none. Without content, only find out whether it could be written. Raises InvalidRequest."""
    target = Path(os.path.realpath(path))  # a link stays one
    partial = target.with_name(f".{target.name}.partial")
    try:
        if target.exists() and not target.is_file():
            _write_to_device(target, content)
            return
        partial.write_bytes(content or b"")
        if content is None:
            partial.unlink()
        else:
            partial.replace(target)
    except OSError as error:
        with suppress(OSError):  # what kept it from being written may keep it from being looked for
            partial.unlink()
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", field="output") from None


def _write_to_device(path: Path, content: bytes | None) -> None:
    """What is no regular file, such as /dev/null or a pipe, is never replaced by one. Raises OSError for a folder."""
    if content is not None or path.is_dir():
        path.write_bytes(content or b"")
