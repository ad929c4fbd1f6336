"""The requests that a replica is working on, as every backend keeps them: tickets, bounded events, cancelling."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable

from safelight.errors import SafelightError
from safelight.picture.generation import Completed, Event, Failed, ImageCompleted, Stage

MAX_EVENTS = 256
"""Of one request, not yet read, before a slow reader misses steps and previews. All else always fits: a request has so
many images, and so many stages that are traced."""

Ticket = int
"""What a request is called between the gateway and a replica."""


class RequestsInFlight:
    """Where the events of each request are waited for. All of it runs in the event loop's thread."""

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._events: dict[Ticket, asyncio.Queue[Event]] = {}

    def __len__(self) -> int:
        return len(self._events)

    async def stream(
        self, submit: Callable[[Ticket], None], cancel: Callable[[Ticket], None]
    ) -> AsyncGenerator[Event, None]:
        """Submit a request; its events, up to Completed or Failed. Closing the generator early cancels it."""
        ticket = next(self._tickets)
        events = self._events[ticket] = asyncio.Queue()
        try:
            submit(ticket)
            while True:
                event = await events.get()
                yield event
                if isinstance(event, Completed | Failed):
                    return
        finally:
            if self._events.pop(ticket, None) is not None:
                cancel(ticket)

    def pass_on(self, ticket: Ticket, event: Event) -> None:
        """To whoever waits for it; nobody does if the request was cancelled meanwhile."""
        events = self._events.get(ticket)
        if events is None:
            return
        if isinstance(event, Completed | Failed):
            del self._events[ticket]
            events.put_nowait(event)
        elif isinstance(event, ImageCompleted | Stage) or events.qsize() < MAX_EVENTS:
            events.put_nowait(event)

    def fail_all(self, error: SafelightError) -> None:
        for ticket in list(self._events):
            self.pass_on(ticket, Failed(error))
