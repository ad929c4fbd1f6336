"""The only table from an error to an HTTP status, and what wraps it: a dialect's words, `Retry-After`, no traceback."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from safelight import errors
from safelight.api.dialect import AnyDialect, ErrorReport, owner_of
from safelight.api.http.errors import RenderError, render_error

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARACTERS = 2000
MAX_PATH_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    type: str
    code: str


_INVALID, _SERVER, _RATE = "invalid_request_error", "server_error", "rate_limit_error"
HANDLED = (errors.SafelightError, HTTPException, ClientDisconnect)
"""What routes raise to be answered by the dialect of their path."""
CLIENT_LEFT = 499
"""nginx's number for a connection closed by the client: nobody reads it but the metrics."""

TABLE: dict[type[Exception], _Kind] = {
    errors.InvalidRequest: _Kind(400, _INVALID, "invalid_value"),
    errors.MissingParameter: _Kind(400, _INVALID, "missing_required_parameter"),
    errors.UnknownParameter: _Kind(400, _INVALID, "unknown_parameter"),
    errors.WrongType: _Kind(400, _INVALID, "invalid_type"),
    errors.AuthenticationFailed: _Kind(401, _INVALID, "invalid_api_key"),
    errors.ModelNotFound: _Kind(404, _INVALID, "model_not_found"),
    errors.ResourceNotFound: _Kind(404, _INVALID, "not_found"),
    errors.NotAcceptable: _Kind(406, _INVALID, "not_acceptable"),
    errors.DeadlineExceeded: _Kind(408, _SERVER, "timeout"),
    errors.Conflict: _Kind(409, _INVALID, "conflict"),
    errors.BodyTooLarge: _Kind(413, _INVALID, "request_too_large"),
    errors.UnknownContentCoding: _Kind(415, _INVALID, "unsupported_media_type"),
    errors.IdempotencyKeyReused: _Kind(422, _INVALID, "idempotency_key_reused"),
    errors.Overloaded: _Kind(429, _RATE, "rate_limit_exceeded"),
    ClientDisconnect: _Kind(CLIENT_LEFT, _INVALID, "client_left"),
    errors.EngineFailure: _Kind(500, _SERVER, "engine_failure"),
    errors.NotReady: _Kind(503, _SERVER, "not_ready"),
    errors.StorageUnavailable: _Kind(503, _SERVER, "storage_unavailable"),
    errors.ReplicaLost: _Kind(503, _SERVER, "replica_lost"),
    errors.GenerationCancelled: _Kind(503, _SERVER, "shutting_down"),
    errors.ModelLoadError: _Kind(503, _SERVER, "model_not_loaded"),
    errors.SafelightError: _Kind(500, _SERVER, "internal_error"),
}

_UNFORESEEN = _Kind(500, _SERVER, "internal_error")
_HTTP_CODES = {404: "unknown_url", 405: "method_not_supported", 415: "unsupported_media_type"}


def worded(scope: Scope, path: str, dialects: Sequence[AnyDialect]) -> Scope:
    """The scope of a request for `path`, whose errors the dialect words that owns it, or else the last one."""
    return {**scope, "path": path, "state": {**scope.get("state", {}), "render_error": renderer_of(path, dialects)}}


def renderer_of(path: str, dialects: Sequence[AnyDialect]) -> RenderError:
    """What words the errors of a path; it is in the scope's state from where the path is known."""
    return _ErrorRenderer(owner_of(path, dialects) or dialects[-1])


def install_handlers(app: FastAPI, *more: type[Exception]) -> None:
    """Let what routes raise, and `more`, be answered by what is in the scope."""

    async def handle(request: Request, error: Exception) -> Response:
        return render_error(request, error)

    for error_class in (*HANDLED, *more):
        app.add_exception_handler(error_class, handle)


@dataclass(frozen=True, slots=True)
class _ErrorRenderer:
    dialect: AnyDialect

    def __call__(self, request: Request, error: Exception) -> Response:
        path, dialect = request.scope["path"], self.dialect
        report = replace(_report(request, error, dialect), user_agent=request.headers.get("user-agent", ""))
        if report.status >= 500 and not isinstance(error, errors.StorageUnavailable):  # the log has that one already
            logger.error("request %s: %s %s: %s", request.state.request_id, request.method, path, report.message)
        return Response(
            json.dumps(dialect.error_body(path, report)),
            status_code=report.status,
            media_type="application/json",
            headers=_headers(request, error),
        )


def _report(request: Request, error: Exception, dialect: AnyDialect) -> ErrorReport:
    if isinstance(error, HTTPException):
        return _http_report(request, error, dialect)
    kind = next((TABLE[each] for each in type(error).__mro__ if each in TABLE), _UNFORESEEN)
    message = error.message if isinstance(error, errors.SafelightError) else "an internal error; the log has it"
    return ErrorReport(
        status=kind.status,
        message=_presentable(message),
        type=kind.type,
        code=kind.code,
        param=_presentable(error.field) if isinstance(error, errors.InvalidRequest) and error.field else None,
    )


def _http_report(request: Request, error: HTTPException, dialect: AnyDialect) -> ErrorReport:
    """The framework's own errors: no such route, wrong method."""
    message, path = str(error.detail), request.scope["path"]
    method, shown = _shortened(request.method, 16), _shortened(path, MAX_PATH_CHARACTERS)
    if error.status_code == HTTPStatus.NOT_FOUND:
        meant = None if dialect.address_of is None else dialect.address_of(path)
        address = None if meant in (None, path) else _shortened(f"{_prefix(request)}{meant}", MAX_PATH_CHARACTERS)
        remedy = f"use {address}" if address else "/docs lists the routes"
        message = f"Invalid URL ({method} {shown}); {remedy}"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{method} is not possible on {shown}; use {_allowed_methods(request)}"
    return ErrorReport(
        status=error.status_code,
        message=_presentable(message),
        type=_INVALID if error.status_code < 500 else _SERVER,
        code=_HTTP_CODES.get(error.status_code, "http_error"),
    )


def _prefix(request: Request) -> str:
    """What the gateway has taken off the path."""
    prefix: str = getattr(request.state, "path_prefix", "")
    return prefix


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _allowed_methods(request: Request) -> str:
    """Of all routes with this path: the framework tells those of the first one only."""
    routes = request.scope["router"].routes
    methods = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ", ".join(["GET", "HEAD", *methods[1:]] if "GET" in methods else methods)


def _headers(request: Request, error: Exception) -> dict[str, str]:
    """`Retry-After` only where coming back helps: some clients repeat any request that is answered with one."""
    if isinstance(error, HTTPException):
        is_wrong_method = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED
        return {**(error.headers or {}), **({"Allow": _allowed_methods(request)} if is_wrong_method else {})}
    if isinstance(error, errors.Overloaded | errors.NotReady | errors.StorageUnavailable):
        return {"Retry-After": str(error.retry_after_s)}
    return next((dict(fields) for kind, fields in _FIELDS.items() if isinstance(error, kind)), {})


_FIELDS: dict[type[Exception], dict[str, str]] = {
    errors.AuthenticationFailed: {"WWW-Authenticate": 'Bearer realm="safelight"'},
    errors.UnknownContentCoding: {"Accept-Encoding": "gzip, deflate"},  # RFC 9110, section 15.5.16
    # The openai client repeats a 408 otherwise, and takes as long again.
    errors.DeadlineExceeded: {"x-should-retry": "false"},
    errors.ReplicaLost: {"Retry-After": "1"},
    errors.GenerationCancelled: {"Retry-After": "1"},
}


def _presentable(text: str) -> str:
    """Bounded, and without what no UTF-8 JSON can carry: a message may quote what the client sent."""
    return _shortened(text, MAX_MESSAGE_CHARACTERS).encode("utf-8", "replace").decode("utf-8")
