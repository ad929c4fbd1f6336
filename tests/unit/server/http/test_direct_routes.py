"""Requests for pictures go straight to their route; what else there is stays FastAPI's."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from safelight.api import dialects
from safelight.api.dialect import Served
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.disk import Disk
from safelight.errors import InvalidRequest
from safelight.server.error_handlers import renderer_of
from safelight.server.http.direct_routes import DirectRoutes
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher

PICTURES = {
    *("/", "/predict", "/score"),
    *(f"{root}/images/{what}" for root in ("/v1", "/openai/v1") for what in ("generations", "edits", "variations")),
}


async def nobody(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError(f"{scope['method']} {scope['path']} took the long way")


def test_no_request_for_a_picture_takes_the_long_way() -> None:
    settings = Settings()
    served = Served(
        dispatcher=FakeDispatcher(),  # type: ignore[arg-type]
        settings=settings,
        deployment=settings,
        uploads=UploadBudget(1),
        disk=Disk(),
    )
    app = DirectRoutes(nobody, routers=[each.create_router(served) for each in dialects.PICTURES])

    client = TestClient(with_errors(app))
    statuses = {path: client.post(path, content=b"{").status_code for path in PICTURES}

    assert set(statuses.values()) == {400}


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("POST", "/direct", "direct"),
        ("POST", "/query?name=x", "x"),
        ("POST", "/named/x", "x"),
        ("POST", "/model", '{"a":1}'),
        ("POST", "/guarded", '{"detail":"Forbidden"}'),
        ("GET", "/direct", '{"detail":"Method Not Allowed"}'),
        ("POST", "/direct/", '{"detail":"Not Found"}'),
    ],
)
def test_what_needs_more_than_the_request_is_made_by_fastapi(method: str, path: str, answer: str) -> None:
    router = APIRouter()

    @router.post("/direct")
    async def direct(request: Request) -> Response:
        return Response("direct")

    @router.post("/query")
    async def query(request: Request, name: str) -> Response:
        return Response(name)

    @router.post("/named/{name}")
    async def named(request: Request, name: str) -> Response:
        return Response(name)

    @router.post("/model")
    async def model(request: Request) -> dict[str, int]:
        return {"a": 1}

    async def forbid() -> None:
        raise HTTPException(403)

    @router.post("/guarded", dependencies=[Depends(forbid)])
    async def guarded(request: Request) -> Response:
        return Response("not guarded")

    app = FastAPI(redirect_slashes=False)
    app.include_router(router)
    app.add_middleware(DirectRoutes, routers=[router])

    assert TestClient(app).request(method, path).text == answer


def test_what_a_route_raises_is_worded_by_its_dialect() -> None:
    router = APIRouter()

    @router.post("/v1/images/generations")
    async def refuse(request: Request) -> Response:
        raise InvalidRequest("too wide", field="width")

    response = TestClient(with_errors(DirectRoutes(nobody, routers=[router]))).post("/v1/images/generations")

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "width"


def with_errors(app: ASGIApp) -> ASGIApp:
    """As the edge does it."""

    async def edge(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            renderer = renderer_of(scope["path"], dialects.all_dialects())
            scope["state"] = {"render_error": renderer, "request_id": "a", "generation_id": "b"}
            await app(scope, receive, send)

    return edge
