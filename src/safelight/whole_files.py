"""Files that are there whole or not at all, whenever the power goes: keys, tokens, certificates, the address."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: str | bytes, *, mode: int) -> None:
    """Text in UTF-8; with `mode` from the first byte on. Raises OSError; what was there before is still there then."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # half of it is of no use, and a full disk has none to spare
        raise
    _keep_name(path.parent)


def _keep_name(folder: Path) -> None:
    """On the disk too: with the power, a file's new name could go while the database that needs it stays."""
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # some network disks have no such thing
        os.fsync(descriptor)
    os.close(descriptor)
