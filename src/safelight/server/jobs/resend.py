"""Sends a kept request through an application, as a client that nobody sees, and keeps what it is answered with."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Scope

from safelight.api.dialects import all_dialects
from safelight.control.jobs.queue import Run
from safelight.control.jobs.records import Answer, StoredRequest
from safelight.server.auth import Caller
from safelight.server.error_handlers import renderer_of

PART_BYTES = 64 * 1024


async def send_through(
    app: ASGIApp, stored: StoredRequest, run: Run, *, request_id: str, within: Scope | None = None
) -> Answer:
    """The answer to a client that waits until `run.left` is set, and then leaves.

    `within` is the scope of a request that is on its way, if `app` is what comes next on it.
    """
    status, body = 500, bytearray()
    headers: list[tuple[str, str]] = []
    parts = _parts(stored.body)

    async def receive() -> Message:
        if (part := next(parts, None)) is not None:
            await asyncio.sleep(0)  # the turn of others, which a client on the line would leave them too
            return part
        await run.left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.extend((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
        else:
            body.extend(message.get("body", b""))

    scope = {**(within or {}), **replayed_scope(stored, run, request_id)}
    await app(scope, receive, send)
    kept = tuple((name, value) for name, value in headers if name.lower() != "x-request-id")
    return Answer(status=status, headers=kept, body=bytes(body))


def _parts(body: bytes) -> Iterator[Message]:
    """The messages that a server makes of a body."""
    for start in range(0, len(body) or 1, PART_BYTES):
        end = start + PART_BYTES
        yield {"type": "http.request", "body": body[start:end], "more_body": end < len(body)}


def answer_of(response: Response) -> Answer:
    """A response that is already whole."""
    return Answer(status=response.status_code, headers=tuple(response.headers.items()), body=bytes(response.body))


def replayed_scope(stored: StoredRequest, run: Run, request_id: str) -> Scope:
    """What a server would make of the request, with its credentials checked."""
    headers = (*stored.headers, ("content-length", str(len(stored.body))), ("x-request-id", request_id))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": stored.path,
        "raw_path": stored.path.encode(),
        "query_string": stored.query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": None,
        "server": None,
        "state": {
            "caller": Caller(stored.endpoint_name),
            "server_url": stored.server,
            "run": run,
            "request_id": request_id,
            "generation_id": uuid.uuid4().hex,
            "render_error": renderer_of(stored.path, all_dialects()),
        },
    }
