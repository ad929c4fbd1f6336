"""When a model leaves memory, told by a clock that the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from safelight.serving.unloading import Unloading

IDLE_S = 10.0
pytestmark = pytest.mark.anyio


@dataclass
class StillReplicas:
    """Replicas that are stopped and started at once."""

    num_stops: int = 0

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.num_stops += 1


@dataclass
class Clock:
    """The event loop's; nothing waits for it."""

    now: float = 1000.0

    async def advance(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(10):
            await asyncio.sleep(0)


async def test_the_time_in_which_nobody_asks_begins_when_the_model_is_there_however_long_it_took_to_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who was told to come again in a few seconds would not find it else."""
    clock, replicas, is_ready = Clock(), StillReplicas(), False
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock.now)
    unloading = Unloading(replicas, idle_s=IDLE_S, is_idle=lambda: is_ready, on_change=lambda: None)
    unloading.start()
    await clock.advance(0.9 * IDLE_S)
    unloading.note_change(is_ready=False)
    is_ready = True
    unloading.note_change(is_ready=True)

    await clock.advance(0.9 * IDLE_S)
    unloading.note_change(is_ready=True)  # another replica has become ready: nobody asked
    assert (unloading.is_unloaded, replicas.num_stops) == (False, 0)

    await clock.advance(0.2 * IDLE_S)
    assert (unloading.is_unloaded, replicas.num_stops) == (True, 1)
    await unloading.stop()


async def test_a_model_that_somebody_was_refused_for_is_there_when_he_comes_again_however_short_the_idle_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, replicas, is_ready = Clock(), StillReplicas(), False
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock.now)
    unloading = Unloading(replicas, idle_s=1.0, is_idle=lambda: is_ready, on_change=lambda: None)
    unloading.start()
    unloading.bring_back(comes_again_s=8.0)
    is_ready = True
    unloading.note_change(is_ready=True)

    await clock.advance(8.5)
    assert not unloading.is_unloaded

    unloading.note_use()  # he has come
    await clock.advance(1.5)
    assert unloading.is_unloaded
    await unloading.stop()
