"""A deployment is named in the path or as the model, and chosen for it, whatever the traffic is."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.control.endpoints.transactions import EndpointState
from safelight.control.store.tables import utc_now
from safelight.errors import Overloaded, SafelightError
from safelight.server.endpoints.gateway import EndpointGateway
from safelight.server.endpoints.routes import EndpointRoutes
from safelight.server.endpoints.starter import ServedDeployment
from safelight.serving.dispatcher import Dispatcher
from safelight.settings import Settings
from tests.fakes import until

URL = "/endpoints/flux/v1/images/generations"


@dataclass
class Door:
    """All that the gateway asks of a dispatcher."""

    refusal: SafelightError | None = None

    def check_at_door(self) -> None:
        if self.refusal is not None:
            raise self.refusal


@dataclass
class Deployment:
    """Answers with what it was asked; `bodies` has it too."""

    name: str
    door: Door = field(default_factory=Door)
    bodies: list[bytes] = field(default_factory=list)

    def served(self) -> ServedDeployment:
        async def answer(request: Request) -> Response:
            body = await request.body()
            self.bodies.append(body)
            return JSONResponse({"by": self.name, "at": request.url.path, "bytes": len(body)})

        app = Starlette(routes=[Route("/{path:path}", answer, methods=["POST", "GET"])])
        return ServedDeployment(cast(Dispatcher, self.door), app, 0, model_id=f"model-of-{self.name}")


class Endpoint:
    """`flux` with deployments blue, which has the traffic, and Green, which mirrors all of it."""

    def __init__(self, **settings: Any) -> None:
        self.deployments = {name: Deployment(name) for name in ("blue", "Green")}
        self.routes = EndpointRoutes("localhost", None)
        self.state = EndpointState(
            name="flux",
            created_at=utc_now(),
            auth_mode="key",
            keys=("primary", "secondary"),
            token_key="",
            traffic={"blue": 100},
            mirror_traffic={"Green": 100},
            deployment_names=frozenset(self.deployments),
        )
        self.publish()
        self.gateway = EndpointGateway(
            Starlette(),
            routes=self.routes,
            arm=PlainTextResponse("arm"),
            settings=Settings(**settings),
            uploads=UploadBudget(1_000_000),
        )

    def publish(self, *ready: str, **changes: Any) -> None:
        names = ready or tuple(self.deployments)
        state = replace(self.state, **changes)
        self.routes.publish(state, {name: self.deployments[name].served() for name in names})

    @contextmanager
    def client(self) -> Iterator[TestClient]:
        async def named(scope: Scope, receive: Receive, send: Send) -> None:
            await self.gateway({**scope, "state": {"request_id": "r"}}, receive, send)

        with TestClient(named) as client:
            client.headers["Authorization"] = "Bearer primary"
            yield client


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[TestClient]:
    with endpoint.client() as client:
        yield client


def form(model: str, *, is_last: bool) -> dict[str, Any]:
    """Some clients write their fields before the files, others behind them."""
    image = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"\xff" * 200_000 + b"\r\n"
    field = f'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n{model}\r\n'.encode()
    content = (image + field if is_last else field + image) + b"--x--\r\n"
    return {"content": content, "headers": {"content-type": "multipart/form-data; boundary=x"}}


WAYS: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "by the path": lambda name: (f"/endpoints/flux/openai/deployments/{name}/images/generations", {"json": {}}),
    "by the path of edits": lambda name: (f"/endpoints/flux/openai/deployments/{name}/images/edits", {"json": {}}),
    "as the model": lambda name: (URL, {"json": {"prompt": "x" * 100_000, "model": name}}),
    "as the model on Azure's path": lambda name: (
        "/endpoints/flux/openai/v1/images/generations?api-version=preview",
        {"json": {"model": name}},
    ),
    "as the model of a compressed body": lambda name: (
        URL,
        {"content": gzip.compress(json.dumps({"model": name}).encode()), "headers": {"content-encoding": "gzip"}},
    ),
    "as the model of an edit in JSON": lambda name: (
        "/endpoints/flux/v1/images/edits",
        {"json": {"images": [{"image_url": "x" * 2_000_00}], "model": name}},
    ),
    "before the files of a form": lambda name: ("/endpoints/flux/v1/images/edits", form(name, is_last=False)),
    "behind the files of a form": lambda name: ("/endpoints/flux/v1/images/variations", form(name, is_last=True)),
}


@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("name", ["Green", "green", "GREEN"])
def test_a_named_deployment_answers_and_nothing_is_mirrored(
    client: TestClient, endpoint: Endpoint, ask: Callable[[str], tuple[str, dict[str, Any]]], name: str
) -> None:
    path, arguments = ask(name)

    response = client.post(path, **arguments)

    sent = response.request.content
    assert (response.json()["by"], response.headers["azureml-model-deployment"]) == ("Green", "Green")
    assert endpoint.deployments["Green"].bodies == [sent]
    assert endpoint.deployments["blue"].bodies == []


@pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS)
def test_another_name_is_the_models_and_leaves_the_choice_to_traffic(
    client: TestClient, endpoint: Endpoint, ask: Callable[[str], tuple[str, dict[str, Any]]]
) -> None:
    path, arguments = ask("sprite")

    response = client.post(path, **arguments)

    assert response.json()["by"] == "blue"
    assert client.portal is not None
    client.portal.call(until, lambda: endpoint.deployments["Green"].bodies == [response.request.content])


def test_the_header_comes_before_any_name(client: TestClient) -> None:
    response = client.post(URL, json={"model": "Green"}, headers={"azureml-model-deployment": "blue"})

    assert response.json()["by"] == "blue"


@pytest.mark.parametrize("body", [b"", b"no JSON", b'{"model": 7}', b'{"model": "Gr', b"[" * 100_000])
def test_a_body_that_is_not_what_it_should_be_is_the_deployments_to_refuse(client: TestClient, body: bytes) -> None:
    assert client.post(URL, content=body).json() == {"by": "blue", "at": "/v1/images/generations", "bytes": len(body)}


def test_a_body_is_read_ahead_no_further_than_the_limit() -> None:
    endpoint = Endpoint(max_body_bytes=1024)
    with endpoint.client() as client:
        response = client.post(URL, json={"model": "Green", "prompt": "x" * 100_000})

    assert response.json()["by"] == "blue"


def test_the_only_deployment_is_named_without_traffic(endpoint: Endpoint) -> None:
    endpoint.publish("blue", deployment_names=frozenset({"blue"}), traffic={}, mirror_traffic={})
    with endpoint.client() as client:
        assert client.post(URL, json={"model": "blue"}).json()["by"] == "blue"
        assert client.post(URL, json={"model": "other"}).status_code == 404


def test_where_all_are_full_it_is_said_before_the_body_is_read(endpoint: Endpoint) -> None:
    endpoint.deployments["blue"].door.refusal = Overloaded("full", retry_after_s=3)
    with endpoint.client() as client:
        one_is_not = client.post(URL, json={"model": "Green"})
        endpoint.deployments["Green"].door.refusal = Overloaded("full too", retry_after_s=3)
        all_are = client.post(URL, json={"model": "Green"})

    assert one_is_not.json()["by"] == "Green"
    assert (all_are.status_code, all_are.headers["retry-after"]) == (429, "3")


@pytest.mark.parametrize(("body", "ready"), [({}, "blue"), ({"model": "Green"}, "Green")])
def test_a_deployment_that_loads_is_waited_for(endpoint: Endpoint, body: dict[str, str], ready: str) -> None:
    other = ({"blue", "Green"} - {ready}).pop()
    endpoint.publish(other)
    answers: list[dict[str, Any]] = []

    async def ask() -> None:
        answers.append(await _ask(endpoint, json.dumps(body).encode()))

    async def scenario() -> None:
        asking = asyncio.create_task(ask())
        await until(lambda: _num_held(endpoint) == 1)
        endpoint.publish("blue", "Green")
        await asking

    asyncio.run(scenario())

    assert answers[0]["status"] == 200
    assert json.loads(answers[0]["body"])["by"] == ready
    assert _num_held(endpoint) == 0


def test_a_deployment_is_waited_for_no_longer_than_is_said() -> None:
    endpoint = Endpoint(hold_while_loading_s=0.01)
    endpoint.publish("Green")
    with endpoint.client() as client:
        response = client.post(URL, json={})
        predicted = client.post("/endpoints/flux/score", json={})

    assert (response.status_code, predicted.status_code) == (503, 503)
    assert "'blue' of endpoint 'flux' is not ready yet" in response.json()["error"]["message"]
    assert response.headers["retry-after"]


def test_what_makes_no_picture_does_not_wait(endpoint: Endpoint) -> None:
    endpoint.publish("Green")
    with endpoint.client() as client:
        assert client.get("/endpoints/flux/health/ready").status_code == 503


def test_no_more_wait_than_may(endpoint: Endpoint) -> None:
    endpoint = Endpoint(max_queued_requests=1)
    endpoint.publish("Green")

    async def scenario() -> int:
        held = asyncio.create_task(_ask(endpoint, b"{}"))
        await until(lambda: _num_held(endpoint) == 1)
        refused = await _ask(endpoint, b"{}")
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        return int(refused["status"])

    assert asyncio.run(scenario()) == 429
    assert _num_held(endpoint) == 0


@pytest.mark.parametrize("is_sent_whole", [True, False])
def test_a_client_that_leaves_while_it_waits_is_forgotten(endpoint: Endpoint, is_sent_whole: bool) -> None:
    endpoint.publish("Green")
    left = asyncio.Event()

    async def scenario() -> dict[str, Any]:
        asking = asyncio.create_task(_ask(endpoint, b"{}", left=left, is_whole=is_sent_whole))
        await until(lambda: _num_held(endpoint) == 1)
        left.set()
        return await asking

    assert asyncio.run(scenario())["status"] == 499
    assert _num_held(endpoint) == 0
    assert endpoint.deployments["blue"].bodies == []


def test_a_server_that_stops_lets_those_go_that_wait(endpoint: Endpoint) -> None:
    endpoint.publish("Green")

    async def scenario() -> dict[str, Any]:
        asking = asyncio.create_task(_ask(endpoint, b"{}"))
        await until(lambda: _num_held(endpoint) == 1)
        endpoint.routes.refuse_new()
        return await asking

    answer = asyncio.run(scenario())

    assert answer["status"] == 503
    assert b"shutting down" in answer["body"]


def _num_held(endpoint: Endpoint) -> int:
    return endpoint.gateway._chooser._num_held


async def _ask(
    endpoint: Endpoint, body: bytes, *, left: asyncio.Event | None = None, is_whole: bool = True
) -> dict[str, Any]:
    """What a client gets that sends `body` to /score, and leaves when `left` is set."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": not is_whole}]
    answer: dict[str, Any] = {"body": b""}

    async def receive() -> Message:
        if pending:
            return pending.pop(0)
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answer["status"] = message.get("status", answer.get("status"))
        answer["body"] += message.get("body", b"")

    headers = [(b"authorization", b"Bearer primary"), (b"content-type", b"application/json")]
    path = URL if b"model" in body else "/endpoints/flux/score"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {
        "headers": headers,
        "state": {"request_id": "r"},
        "http_version": "1.1",
        "root_path": "",
        "scheme": "http",
    }
    scope |= {"server": ("localhost", 80), "client": None}
    await endpoint.gateway(scope, receive, send)
    return answer
