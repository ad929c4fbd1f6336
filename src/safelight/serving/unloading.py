"""Lets a model leave memory when nobody has asked for it for a while, and brings it back for whoever asks next.

Its replicas end, and start anew: a process that is gone holds no byte, of the machine's memory or the device's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from safelight.errors import SafelightError

logger = logging.getLogger(__name__)

RETRY_S = 5.0


class Startable(Protocol):
    """Replicas, as far as they are known here."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Unloading:
    """Owns the task that stops and starts the replicas. `idle_s` of 0: they stay.

    `is_idle` says whether the model is loaded and nothing waits for it or runs.
    """

    def __init__(
        self, replicas: Startable, *, idle_s: float, is_idle: Callable[[], bool], on_change: Callable[[], None]
    ) -> None:
        self.is_unloaded = False
        self._replicas = replicas
        self._idle_s = idle_s
        self._is_idle = is_idle
        self._on_change = on_change
        self._used_at = 0.0
        """On the event loop's clock."""
        self._was_ready = False
        self._comes_again_s = 0.0
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._idle_s > 0:
            self.note_use()
            self._task = asyncio.create_task(self._unload_and_bring_back(), name="unloading when idle")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def note_use(self) -> None:
        """Somebody asks for a picture, or has got one."""
        if self._idle_s > 0:
            self._used_at = asyncio.get_running_loop().time()

    def note_change(self, *, is_ready: bool) -> None:
        """Replicas have changed: the time in which nobody asks begins anew when the model is there.

        It begins later if somebody was refused meanwhile: a model that is gone when he comes again would never be his.
        """
        if is_ready and not self._was_ready:
            self.note_use()
            self._used_at += self._comes_again_s
            self._comes_again_s = 0.0
        self._was_ready = is_ready

    def bring_back(self, *, comes_again_s: float = 0.0) -> None:
        """Somebody needs the model: he waits for it, or was refused and comes again within so long."""
        self._comes_again_s = max(self._comes_again_s, comes_again_s)
        self._wanted.set()

    async def _unload_and_bring_back(self) -> None:
        while True:
            await self._wait_until_unused()
            logger.info("nobody has asked for %g s: the model leaves memory until somebody does", self._idle_s)
            self._wanted.clear()
            self.is_unloaded = True
            await self._replicas.stop()
            await self._wanted.wait()
            await self._start()
            self.note_use()
            self.is_unloaded = False
            self._on_change()

    async def _start(self) -> None:
        while True:
            try:
                await self._replicas.start()
                return
            except SafelightError as error:
                logger.error("the model cannot be brought back: %s; trying again in %g s", error.message, RETRY_S)
                await asyncio.sleep(RETRY_S)

    async def _wait_until_unused(self) -> None:
        while True:
            if not self._is_idle():
                self.note_use()
            left_s = self._used_at + self._idle_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)
