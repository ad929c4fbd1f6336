"""Server-sent events: a generation told while it happens, for as long as its client listens.

The status is 200 from the moment the request is admitted; what goes wrong later is the stream's last event, worded as
the dialect words its errors.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from safelight.api.http.disconnect import while_connected
from safelight.api.http.errors import render_error
from safelight.picture.generation import Event, Failed

logger = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"
KEEP_ALIVE_S = 15.0
"""Proxies close a connection that is silent for long; a comment is a sign of life that clients skip."""
STALL_TIMEOUT_S = 60.0
"""A client that takes nothing for so long has left, whatever its connection says: it must not keep its place."""
PART_BYTES = 64 * 1024
"""A large frame is sent in parts: a client that takes one in time is there, however long it needs for the whole."""

RenderEvent = Callable[[Event], Iterable[bytes]]
"""The frames that tell a client of an event; none if this dialect does not."""


class EventStream(StreamingResponse):
    """Sends the frames of a generation. When the client leaves, or takes no more, the generation is cancelled."""

    def __init__(self, request: Request, events: AsyncGenerator[Event, None], render: RenderEvent) -> None:
        self._frames = _frames(request, events, render)
        super().__init__(
            self._frames,
            media_type=EVENT_STREAM,
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},  # the second one is nginx's
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                for part in _parts(message):
                    async with asyncio.timeout(STALL_TIMEOUT_S):
                        await send(part)
            except TimeoutError:
                logger.warning("the client of a stream took nothing for %g s and counts as gone", STALL_TIMEOUT_S)
                raise ClientDisconnect from None

        with suppress(ClientDisconnect):
            async with aclosing(self._frames):
                await while_connected(Request(scope, receive), self.stream_response(send_in_time))


def _parts(message: Message) -> list[Message]:
    """A frame is never the end of the body, so that none of its parts is."""
    body = message.get("body", b"")
    if len(body) <= PART_BYTES:
        return [message]
    return [{**message, "body": body[start : start + PART_BYTES]} for start in range(0, len(body), PART_BYTES)]


def frame(data: Mapping[str, object], *, event: str) -> bytes:
    """One event as it goes over the wire."""
    return _frame(event, json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))


async def _frames(
    request: Request, events: AsyncGenerator[Event, None], render: RenderEvent
) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        next_event = asyncio.ensure_future(anext(events))
        try:
            while True:
                if not (await asyncio.wait({next_event}, timeout=KEEP_ALIVE_S))[0]:
                    yield b": still working\n\n"
                    continue
                event = next_event.result()
                if isinstance(event, Failed):
                    yield _frame("error", bytes(render_error(request, event.error).body))
                for each in render(event):
                    yield each
                next_event = asyncio.ensure_future(anext(events))
        except StopAsyncIteration:
            return
        finally:
            next_event.cancel()
            await asyncio.gather(next_event, return_exceptions=True)


def _frame(event: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode("ascii"), data)
