from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

import pytest

from safelight.serving.backends import child_process
from safelight.serving.backends.child_process import Child, spawned

pytestmark = pytest.mark.anyio


async def test_a_process_that_does_not_end_is_killed_however_often_who_waits_for_its_end_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that is stopped while it unloads a model, whose replica hangs, cancels three times."""
    monkeypatch.setattr(child_process, "EXIT_TIMEOUT_S", 0.5)
    children: list[Child] = []
    begun = asyncio.Event()

    async def live() -> None:
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        async with spawned(command, dict(os.environ), name="replica 0", log_format="text") as child:
            children.append(child)
            begun.set()
            await asyncio.Event().wait()

    living = asyncio.create_task(live())
    await begun.wait()
    for _ in range(3):
        living.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await living

    is_over = children[0].exit_status is not None
    if not is_over:
        os.kill(children[0].pid, 9)
    assert is_over
