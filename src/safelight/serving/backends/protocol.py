"""What the dispatcher knows of a replica: a name, a state, and a way to send it a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from typing import Protocol

from safelight.errors import SafelightError
from safelight.picture.generation import Event, GenerationRequest
from safelight.serving.counters import Counters


class ReplicaState(StrEnum):
    STARTING = "starting"
    """Its process is being started, or waits to be started again."""
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """Finishes what it has and takes nothing new."""
    FAILED = "failed"
    """Cannot serve, and will not be started again."""
    STOPPED = "stopped"


class Replica(Protocol):
    """One process that owns one device."""

    on_change: Callable[[], None]
    """Called after every change of state."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> ReplicaState: ...
    @property
    def error(self) -> SafelightError | None:
        """Why it ended the last time, or cannot be started."""

    @property
    def last_words(self) -> str:
        """The end of what its process wrote to standard error, if it ended unforeseen; may hold secrets."""

    @property
    def plan(self) -> str:
        """How its model lies in memory, in one line; empty until it is known."""

    @property
    def picture_s(self) -> float | None:
        """Seconds that the steps of the default picture may take; None: next to nothing, or not known yet."""

    @property
    def pid(self) -> int | None: ...
    @property
    def restarts(self) -> int: ...
    @property
    def counters(self) -> Counters:
        """Totals over all its lives."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """End it now; its requests fail with GenerationCancelled."""

    def stream(self, request: GenerationRequest, *, age_s: float) -> AsyncGenerator[Event, None]:
        """The events of a request, up to Completed or Failed. Closing the generator early cancels the request.

        Raises ReplicaLost or Overloaded at once if it cannot be sent.
        """
