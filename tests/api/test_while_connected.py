"""Who cancels what: a client that leaves ends its work, and whoever ends the whole request is not taken for it."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from safelight.api.http.disconnect import while_connected


def request_of(has_left: asyncio.Event) -> Request:
    async def receive() -> Message:
        await has_left.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


async def work(has_begun: asyncio.Event) -> None:
    has_begun.set()
    await asyncio.Event().wait()


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_request_that_is_ended_as_its_client_leaves_is_ended(is_ended: bool) -> None:
    async def leave() -> None:
        has_left, has_begun = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(while_connected(request_of(has_left), work(has_begun)))
        await has_begun.wait()
        await asyncio.sleep(0)  # the client is listened to
        has_left.set()
        while not task.cancelling():  # noqa: ASYNC110  it sets no event
            await asyncio.sleep(0)
        if is_ended:
            task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError if is_ended else ClientDisconnect):
        asyncio.run(leave())
