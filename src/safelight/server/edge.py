"""The ASGI edge: names every request, counts it, and answers what no one foresaw with a 500 of the dialect."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.api.dialects import all_dialects
from safelight.api.generate import run_of
from safelight.api.http.errors import render_error
from safelight.errors import GenerationCancelled
from safelight.server import metrics
from safelight.server.error_handlers import CLIENT_LEFT, renderer_of
from safelight.server.metrics import HEALTH, RequestMetrics, place_of
from safelight.telemetry.names import RequestNames, names_from
from safelight.telemetry.spans import Span, Tracer, during

logger = logging.getLogger(__name__)

MAX_REQUEST_ID_CHARACTERS = 64


class EdgeMiddleware:
    """Outermost of ours: whatever answers, the answer has an `x-request-id` and is counted, and traced by `tracer`."""

    def __init__(self, app: ASGIApp, *, requests: RequestMetrics, tracer: Tracer | None = None) -> None:
        self._app = app
        self._requests = requests
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        client_request_id = _cleaned(request.headers.get("x-ms-client-request-id", ""))
        request.state.generation_id = uuid.uuid4().hex
        request.state.request_id = (
            _cleaned(request.headers.get("x-request-id", "")) or client_request_id or request.state.generation_id
        )
        request.state.render_error = renderer_of(scope["path"], all_dialects())
        names = names_from(request.state.request_id, request.headers.items())
        span = None if self._tracer is None else self._begin_span(self._tracer, request, names)
        started_at = time.monotonic()
        answered = _Answered()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request.state.request_id
                if client_request_id:
                    headers["x-ms-client-request-id"] = client_request_id
            await send(message)

        with during(span, names if span is None else span.names_for(names.request_id)):
            try:
                await self._answer(request, answered, receive, send_named)
            finally:
                status = CLIENT_LEFT if answered.status is None else answered.status
                self._requests.observe(request, status=status, seconds=time.monotonic() - started_at)
                if span is not None:
                    _end_span(span, request, status)

    async def _answer(self, request: Request, answered: _Answered, receive: Receive, send: Send) -> None:
        scope = request.scope
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if answered.status is not None:
                raise
            error = GenerationCancelled("the server is shutting down; send the request again")
            await render_error(request, error)(scope, receive, send)
        except Exception as error:  # the ASGI edge: the one place that may catch everything
            if answered.status is not None:
                raise
            logger.exception("request %s: %s %s", request.state.request_id, request.method, scope["path"])
            await render_error(request, error)(scope, receive, send)

    def _begin_span(self, tracer: Tracer, request: Request, names: RequestNames) -> Span | None:
        """None for those who only look how the server is, and often."""
        dialect = self._requests.dialect_of(request)
        if dialect == HEALTH or request.scope["path"] == metrics.PATH:
            return None
        attributes = {
            "http.request.method": request.method,
            "url.path": request.scope["path"],
            "url.scheme": request.scope.get("scheme", "http"),
            "safelight.dialect": dialect,
            "safelight.request_id": names.request_id,
        }
        return tracer.start(request.method, names, "consumer" if run_of(request) else "server", attributes)


@dataclass(slots=True)
class _Answered:
    """How a request was answered; None: not yet."""

    status: int | None = None


def _end_span(span: Span, request: Request, status: int) -> None:
    """By https://opentelemetry.io/docs/specs/semconv/http/http-spans/: a name of few, and no query."""
    endpoint, deployment = place_of(request)
    route = getattr(request.scope.get("route"), "path", None)
    if route is not None:
        span.rename(f"{request.method} {route}")
        span.set({"http.route": route})
    span.set({"http.response.status_code": status})
    if endpoint:
        span.set({"safelight.endpoint": endpoint, "safelight.deployment": deployment})
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.fail(str(status))
    span.end()


def _cleaned(request_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "", request_id)[:MAX_REQUEST_ID_CHARACTERS]
