"""The Bearer key. Only the health routes are open beside `/docs` and the page, which say nothing
that the source does not.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from safelight.api import dialects
from safelight.api.http.errors import render_error
from safelight.errors import AuthenticationFailed
from safelight.server.web import page

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/docs", "/openapi.json", *page.OPEN_PATHS})
OPEN_FOLDERS = ("/static-offline-docs/", page.ASSETS)
"""The style and script of /docs and of the page."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, once that was checked; it is in the scope's state only if the server put it there."""

    endpoint_name: str | None
    """None: the server's own model."""
    owner: str = field(default="", repr=False)


def caller_of(scope: Scope) -> Caller | None:
    """None: nobody has checked the request yet."""
    caller: Caller | None = scope.get("state", {}).get("caller")
    return caller


class ServerKey:
    """The key of the server's own model: `Authorization: Bearer <key>`, or `api-key: <key>` as Azure's client does."""

    def __init__(self, key: str) -> None:
        self._digest = _digest(key)

    def is_known(self, request: Request) -> bool:
        """Whether it comes with the key."""
        given = key_of(request)
        return given is not None and hmac.compare_digest(_digest(given), self._digest)

    def check(self, request: Request) -> None:
        """Raises AuthenticationFailed."""
        if key_of(request) is None:
            raise AuthenticationFailed("You didn't provide an API key; send it as `Authorization: Bearer <key>`")
        if not self.is_known(request):
            raise AuthenticationFailed("Incorrect API key provided; ask whoever runs this server for the right one")


class KeyMiddleware:
    """Lets through who knows the key: whether there is such a route is for them alone."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        check: Callable[[Request], None],
        is_open: Callable[[str], bool],
    ) -> None:
        """`check` raises AuthenticationFailed. What `is_open` says of a path counts for reading it only."""
        self._app = app
        self._check = check
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            may_read = request.method == "GET" and self._is_open(scope["path"])
            if caller_of(scope) is None and not may_read:
                self._check(request)
                vouch_for(request)
        except AuthenticationFailed as error:
            await render_error(request, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path of the server's own model may be read without its key."""
    return path in OPEN_PATHS or path == "/" or path.startswith(OPEN_FOLDERS) or dialects.is_open(path)


def vouch_for(request: Request) -> None:
    """Its key was checked: where connections get scarce, those of strangers go first."""
    request.state.has_key = True


def key_of(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return request.headers.get("api-key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
