"""The ASGI edge: names every request, counts it, and answers what no one foresaw with a 500 of the dialect."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.api.dialects import all_dialects
from safelight.api.http.errors import render_error
from safelight.errors import GenerationCancelled
from safelight.server.error_handlers import CLIENT_LEFT, renderer_of
from safelight.server.metrics import RequestMetrics

logger = logging.getLogger(__name__)

MAX_REQUEST_ID_CHARACTERS = 64


class EdgeMiddleware:
    """Outermost of ours: whatever answers, the answer has an `x-request-id` and is counted."""

    def __init__(self, app: ASGIApp, *, requests: RequestMetrics) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        client_request_id = _cleaned(request.headers.get("x-ms-client-request-id", ""))
        request.state.request_id = (
            _cleaned(request.headers.get("x-request-id", "")) or client_request_id or uuid.uuid4().hex
        )
        request.state.generation_id = uuid.uuid4().hex
        request.state.render_error = renderer_of(scope["path"], all_dialects())
        started_at = time.monotonic()
        status = None

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request.state.request_id
                if client_request_id:
                    headers["x-ms-client-request-id"] = client_request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except asyncio.CancelledError:
            if status is not None:
                raise
            error = GenerationCancelled("the server is shutting down; send the request again")
            await render_error(request, error)(scope, receive, send_named)
        except Exception as error:  # the ASGI edge: the one place that may catch everything
            if status is not None:
                raise
            logger.exception("request %s: %s %s", request.state.request_id, request.method, request.scope["path"])
            await render_error(request, error)(scope, receive, send_named)
        finally:
            self._requests.observe(
                request, status=CLIENT_LEFT if status is None else status, seconds=time.monotonic() - started_at
            )


def _cleaned(request_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "", request_id)[:MAX_REQUEST_ID_CHARACTERS]
