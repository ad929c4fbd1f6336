"""The 0600 files of the data directory that hold keys and tokens."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from safelight.errors import ConfigurationError
from safelight.whole_files import write_whole

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105  a file's name


def read_admin_token(data_dir: Path) -> str:
    """The administrator's token, made at the first start."""
    return read_or_create(data_dir / ADMIN_TOKEN_FILE, lambda: secrets.token_urlsafe(32))


def read_or_create(path: Path, make: Callable[[], str]) -> str:
    """The text of a private file; `make` fills it if it does not exist."""
    try:
        if not path.exists():
            write_private(path, make())
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read or made: {error.strerror}") from None
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} is readable by others; run: chmod 600 {path}")
    if not text:
        raise ConfigurationError(f"{path} is empty; delete it to have a new one made")
    return text


def write_private(path: Path, text: str) -> None:
    """Write whole or not at all, readable by the owner only. Raises OSError."""
    write_private_bytes(path, f"{text}\n".encode())


def write_private_bytes(path: Path, content: bytes) -> None:
    """As `write_private`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(path, content, mode=0o600)
