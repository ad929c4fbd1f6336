from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.control.endpoints.transactions import EndpointState
from safelight.control.store.tables import utc_now
from safelight.server.endpoints.gateway import EndpointGateway
from safelight.server.endpoints.routes import EndpointRoutes
from safelight.server.endpoints.starter import ServedDeployment
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import Settings
from tests.fakes import until


class OpenDoor:
    """All that the gateway asks of a dispatcher."""

    def check_at_door(self) -> None:
        pass


class Deployment:
    """Says who it is, and keeps what it was sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bodies: list[bytes] = []

    def served(self) -> ServedDeployment:
        async def answer(request: Request) -> Response:
            self.bodies.append(await request.body())
            return PlainTextResponse(f"{self.name} at {request.url.path}")

        app = Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])
        return ServedDeployment(cast(Dispatcher, OpenDoor()), app, 0)


@pytest.fixture
def deployments() -> dict[str, Deployment]:
    return {name: Deployment(name) for name in ("blue", "green")}


@pytest.fixture
def client(deployments: dict[str, Deployment]) -> Iterator[TestClient]:
    async def own_model(request: Request) -> Response:
        return PlainTextResponse("the server's own model")

    routes = EndpointRoutes("localhost", None)
    state = EndpointState(
        name="flux",
        created_at=utc_now(),
        auth_mode="key",
        keys=("primary", "secondary"),
        token_key="",
        traffic={"blue": 100},
        mirror_traffic={"green": 50},
        deployment_names=frozenset(deployments),
    )
    routes.publish(state, {name: each.served() for name, each in deployments.items()})
    gateway = EndpointGateway(
        Starlette(routes=[Route("/score", own_model, methods=["POST"])]),
        routes=routes,
        arm=PlainTextResponse("arm"),
        settings=Settings(),
        uploads=UploadBudget(1000),
    )
    with TestClient(gateway) as client:
        client.headers["Authorization"] = "Bearer primary"
        yield client


def test_the_deployment_sees_the_path_without_the_endpoint(client: TestClient) -> None:
    assert client.post("/endpoints/flux/v1/images/generations").text == "blue at /v1/images/generations"


def test_without_a_key_of_an_endpoint_the_servers_own_model_is_asked(client: TestClient) -> None:
    assert client.post("/score", headers={"Authorization": "Bearer other"}).text == "the server's own model"


@pytest.mark.parametrize(("draw", "copies"), [(0.4, [b"astronaut"]), (0.6, [])])
def test_a_share_of_requests_is_copied_to_the_mirror(
    client: TestClient,
    deployments: dict[str, Deployment],
    monkeypatch: pytest.MonkeyPatch,
    draw: float,
    copies: list[bytes],
) -> None:
    monkeypatch.setattr("random.random", lambda: draw)

    response = client.post("/endpoints/flux/score", content=b"astronaut")

    assert response.text == "blue at /score"
    assert client.portal is not None
    client.portal.call(until, lambda: deployments["green"].bodies == copies)


def test_a_deployment_stops_only_when_a_request_that_has_just_come_in_is_answered() -> None:
    events: list[str] = []
    may_answer = asyncio.Event()

    class DrainingDispatcher:
        async def drain(self, timeout_s: float) -> None:
            events.append("drained")

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await may_answer.wait()
        events.append("answered")

    async def scenario() -> None:
        deployment = ServedDeployment(cast(Dispatcher, DrainingDispatcher()), answer, 60)
        request = asyncio.create_task(deployment({}, receive=None, send=None))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(deployment.stop())
        await asyncio.sleep(0)
        may_answer.set()
        await asyncio.gather(request, stopping)

    asyncio.run(scenario())

    assert events == ["answered", "drained"]


def test_what_does_not_end_holds_a_deployment_up_for_one_drain_timeout_and_not_for_two() -> None:
    """A service manager that waits for a little more than one of them would kill it before it has said why."""
    left: list[float] = []

    class DrainingDispatcher:
        async def drain(self, timeout_s: float) -> None:
            left.append(timeout_s)

    async def never_answer(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        deployment = ServedDeployment(cast(Dispatcher, DrainingDispatcher()), never_answer, 0.05)
        request = asyncio.create_task(deployment({}, receive=None, send=None))
        await asyncio.sleep(0)
        await deployment.stop()
        request.cancel()

    asyncio.run(scenario())

    assert left == [0]


def test_an_error_of_the_gateway_is_worded_by_the_dialect_of_the_path(client: TestClient) -> None:
    wrong = {"Authorization": "Bearer wrong"}

    assert client.post("/endpoints/flux/v1/images/generations", headers=wrong).json()["error"]["param"] is None
    assert client.post("/endpoints/flux/score", headers=wrong).json()["error"].keys() == {"code", "message"}
    assert isinstance(client.post("/endpoints/flux/predict", headers=wrong).json()["error"], str)


@pytest.mark.parametrize("path", ["/subscriptions/s", "/SUBSCRIPTIONS/s", "/metadata/endpoints"])
def test_paths_of_azure_resource_manager_go_to_its_application(client: TestClient, path: str) -> None:
    assert client.get(path).text == "arm"
