"""The Bearer key. Only the health routes are open beside `/docs`, which says nothing that the source does not."""

from __future__ import annotations

import hashlib
import hmac

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from safelight.api import openai
from safelight.errors import AuthenticationFailed
from safelight.server.error_handlers import ErrorRenderer

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/docs", "/openapi.json"})
OPEN_FOLDERS = ("/static-offline-docs/", openai.IMAGE_LINKS)
"""The style and script of /docs; pictures whose links are keys themselves."""


class KeyMiddleware:
    """Lets through who knows the key: `Authorization: Bearer <key>`, or `api-key: <key>` as Azure's client sends it."""

    def __init__(self, app: ASGIApp, *, key: str, errors: ErrorRenderer) -> None:
        self._app = app
        self._digest = _digest(key)
        self._errors = errors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            if not _is_open(request):
                self._check(request)
        except AuthenticationFailed as error:
            await self._errors.render(request, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, request: Request) -> None:
        given = key_of(request)
        if given is None:
            raise AuthenticationFailed("You didn't provide an API key; send it as `Authorization: Bearer <key>`")
        if not hmac.compare_digest(_digest(given), self._digest):
            raise AuthenticationFailed("Incorrect API key provided; ask whoever runs this server for the right one")


def _is_open(request: Request) -> bool:
    path = request.url.path
    return request.method in ("GET", "HEAD") and (path in OPEN_PATHS or path == "/" or path.startswith(OPEN_FOLDERS))


def key_of(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return request.headers.get("api-key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
