"""Waiting for what another process, thread or task will make true."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tests.fakes import DEADLINE_S


def eventually(condition: Callable[[], bool], *, timeout_s: float = DEADLINE_S) -> None:
    """Poll what another process will make true."""
    assert is_eventually(condition, timeout_s=timeout_s)


def is_eventually(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    for pause_s in pauses():
        if condition():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    raise AssertionError


def pauses() -> Iterator[float]:
    """Between one question and the next, longer and longer: each takes time from what is waited for."""
    pause_s = 0.005
    while True:
        yield pause_s
        pause_s = min(1.3 * pause_s, 0.05)
