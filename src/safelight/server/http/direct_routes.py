"""The straight way of a request for pictures: from its path to its endpoint.

FastAPI documents these routes. To find one it asks each of all routes in turn, twice, and then resolves what the
endpoint does not have: arguments, dependencies, stacks of what to close (docs/decisions/0046-what-a-request-costs.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import iscoroutinefunction, signature
from typing import get_type_hints

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from safelight.api.http.errors import render_error
from safelight.server.error_handlers import HANDLED


class DirectRoutes:
    """ASGI middleware, the innermost one, for what of `routers` reads the request and makes the response itself."""

    def __init__(self, app: ASGIApp, *, routers: Iterable[APIRouter]) -> None:
        self._app = app
        routes = [each for router in routers for each in router.routes if isinstance(each, APIRoute)]
        self._routes = {
            (method, each.path): each for each in routes if _is_direct(each) for method in each.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except HANDLED as error:
            response = render_error(request, error.with_traceback(None))  # raised again, it would keep each time's
        await response(scope, receive, send)


def _is_direct(route: APIRoute) -> bool:
    """Whether its endpoint needs nothing but the request, and nothing is made of what it returns."""
    returned = get_type_hints(route.endpoint).get("return")
    return (
        iscoroutinefunction(route.endpoint)
        and list(signature(route.endpoint).parameters) == ["request"]
        and isinstance(returned, type)
        and issubclass(returned, Response)
        and not route.param_convertors
        and not route.dependencies
    )
