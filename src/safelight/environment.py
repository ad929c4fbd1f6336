"""The process's environment, which only this module and `settings` read: here what can be read without a check."""

from __future__ import annotations

import os
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
