"""The client leaves, the work stops: a generation runs only as long as someone waits for its pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[None, None, T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection: then ClientDisconnect is raised.

    The body must have been read: only then the server's next message can be the disconnect.
    """
    task = asyncio.current_task()
    assert task is not None
    num_cancelled, has_left, is_over = task.cancelling(), False, False

    def stop(_: asyncio.Future[None]) -> None:
        nonlocal has_left
        if not is_over:
            has_left = True
            task.cancel()

    leaving = asyncio.ensure_future(_client_left(request))
    leaving.add_done_callback(stop)
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and task.uncancel() <= num_cancelled:  # else somebody else has cancelled it as well
            raise ClientDisconnect from None
        raise
    finally:
        is_over = True
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
