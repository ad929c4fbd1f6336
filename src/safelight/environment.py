"""The process's environment, which only this module and `settings` touch: here what needs no check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ENV_PREFIX = "SAFELIGHT_"
DEFAULT_DATA_DIR = Path("~/.local/share/safelight")


def read_environment() -> dict[str, str]:
    """A copy of the process's environment, for whoever starts a child process and decides what it may see."""
    return dict(os.environ)


def read_variable(setting: str) -> str | None:
    """What the environment says of a setting, as it stands there; None if it says nothing."""
    name = ENV_PREFIX + setting.upper()
    return next((value for each, value in os.environ.items() if each.upper() == name and value), None)


@contextmanager
def hidden(is_hidden: Callable[[str], bool]) -> Iterator[None]:
    """A block in which no process is started that sees the variables of these names."""
    kept = {name: value for name, value in os.environ.items() if is_hidden(name)}
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def keep_compiled() -> None:
    """Let torch keep what it compiles where the next start finds it, unless the environment names another place."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(DEFAULT_DATA_DIR.expanduser() / "compiled"))
