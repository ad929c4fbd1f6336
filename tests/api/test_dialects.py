"""One more dialect takes a module and a line of the registry: a third one goes all the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from safelight.api import dialects
from safelight.api.dialect import Dialect, ErrorReport, Served, segments_of
from safelight.api.generate import generate, refuse_if_full
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.api.http.event_stream import EventStream
from safelight.control.endpoints.transactions import EndpointState
from safelight.control.store.tables import utc_now
from safelight.disk import Disk
from safelight.errors import EngineFailure, Overloaded
from safelight.picture.generation import Event
from safelight.picture.parameters import build_generation_request
from safelight.server.edge import EdgeMiddleware
from safelight.server.endpoints.gateway import EndpointGateway
from safelight.server.endpoints.routes import EndpointRoutes
from safelight.server.endpoints.starter import ServedDeployment
from safelight.server.endpoints.wiring import create_deployment_app
from safelight.server.metrics import RequestMetrics
from safelight.settings import DeploymentSettings, Settings
from tests.api.fake_dispatcher import FakeDispatcher
from tests.api.job_server import ASYNC, ended, serving_jobs

LINK = "/plain/open/a"


def create_router(served: Served) -> APIRouter:
    """The body is the prompt."""
    router = APIRouter(tags=["Plain"])

    @router.post("/plain")
    async def plain(request: Request, stream: bool = False) -> Response:
        refuse_if_full(request, served.dispatcher)
        prompt = (await request.body()).decode()
        wanted = build_generation_request(served.dispatcher.spec, id=request.state.generation_id, prompt=prompt)
        if stream:
            return EventStream(request, served.dispatcher.stream(wanted), tell_nothing)
        result = await generate(request, served.dispatcher, wanted)
        return Response(result.images[0].content, media_type="image/png")

    @router.get(LINK)
    async def link() -> Response:
        return PlainTextResponse("open")

    return router


def tell_nothing(_: Event) -> Iterable[bytes]:
    return ()


def error_body(path: str, report: ErrorReport) -> Mapping[str, object]:
    return {"oops": report.message, "at": path}


PLAIN = Dialect(
    name="plain",
    title="Plain",
    create_router=create_router,
    owns_path=lambda path: segments_of(path)[:1] == ["plain"],
    error_body=error_body,
    is_open=lambda path: path == LINK,
)


@pytest.fixture(autouse=True)
def third_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "PICTURES", (PLAIN, *dialects.PICTURES))


def test_a_third_dialect_has_its_routes_errors_open_paths_metrics_and_place_in_docs(
    connect: Callable[..., TestClient], dispatcher: FakeDispatcher
) -> None:
    client = connect(api_key="k")
    stranger, known = client.post("/plain"), {"Authorization": "Bearer k"}

    picture = client.post("/plain", content="a fox", headers=known)
    dispatcher.error = Overloaded("full")
    full, other = client.post("/plain", headers=known), client.post("/score", headers=known)

    assert picture.content.startswith(b"\x89PNG")
    assert (stranger.status_code, stranger.json()["at"]) == (401, "/plain")
    assert (full.status_code, full.json()) == (429, {"oops": "full", "at": "/plain"})
    assert other.json()["error"]["message"] == "full"
    assert client.get(LINK).text == "open"
    assert 'safelight_requests_total{dialect="plain",status="429"} 1.0' in client.get("/metrics", headers=known).text
    document = client.get("/openapi.json").json()
    assert document["paths"]["/plain"]["post"]["tags"] == ["Plain"]
    assert "behind the Hugging Face, OpenAI and Plain image APIs" in document["info"]["description"]


def test_a_method_that_a_third_dialects_path_has_not_is_told_in_its_words(connect: Callable[..., TestClient]) -> None:
    response = connect().delete("/plain")

    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json() == {"oops": "DELETE is not possible on /plain; use POST", "at": "/plain"}


def test_a_request_of_a_third_dialect_becomes_a_job_or_is_refused_in_its_words(tmp_path: Path) -> None:
    with serving_jobs(FakeDispatcher(), tmp_path) as start:
        client = start()
        refused = client.post("/plain", content=" ", headers=ASYNC)
        elsewhere = client.post("/plain/nowhere", content="a fox", headers=ASYNC)
        job = ended(client, client.post("/plain", content="a fox", headers=ASYNC))

        picture = client.get(job["result"])

    assert (refused.status_code, refused.json()["oops"][:16]) == (400, "prompt is empty;")
    assert (elsewhere.status_code, elsewhere.json()["at"]) == (404, "/plain/nowhere")
    assert picture.content.startswith(b"\x89PNG")


@pytest.fixture
def endpoint(dispatcher: FakeDispatcher) -> TestClient:
    """A client of endpoint `flux`, whose deployment `blue` has the dispatcher."""
    app = create_deployment_app(Settings(), DeploymentSettings(), dispatcher, UploadBudget(1000), Disk())  # type: ignore[arg-type]
    routes = EndpointRoutes("localhost", None)
    state = EndpointState(
        name="flux",
        created_at=utc_now(),
        auth_mode="key",
        keys=("k",),
        token_key="",
        traffic={"blue": 100},
        mirror_traffic={},
        deployment_names=frozenset({"blue"}),
    )
    routes.publish(state, {"blue": ServedDeployment(dispatcher, app, 0)})  # type: ignore[arg-type]
    gateway = EndpointGateway(
        PlainTextResponse("own model"),
        routes=routes,
        arm=PlainTextResponse("arm"),
        settings=Settings(),
        uploads=UploadBudget(1000),
    )
    edge = EdgeMiddleware(gateway, requests=RequestMetrics(CollectorRegistry()))
    return TestClient(edge, headers={"Authorization": "Bearer k"}, raise_server_exceptions=False)


@pytest.mark.parametrize("error", [EngineFailure("no pixels"), ZeroDivisionError("a secret")])
def test_behind_an_endpoint_the_error_is_the_inner_paths_in_an_answer_and_in_a_stream(
    endpoint: TestClient, dispatcher: FakeDispatcher, error: Exception
) -> None:
    dispatcher.error = error

    answer = endpoint.post("/endpoints/flux/plain", content="a fox")
    nowhere = endpoint.get("/endpoints/flux/plain/nowhere")
    stranger = endpoint.post("/endpoints/flux/plain", headers={"Authorization": "Bearer wrong"})

    assert (answer.status_code, answer.json()["at"]) == (500, "/plain")
    assert "secret" not in answer.text
    assert (nowhere.status_code, nowhere.json()["at"]) == (404, "/plain/nowhere")
    assert (stranger.status_code, stranger.json()["at"]) == (401, "/plain")
    if isinstance(error, EngineFailure):
        stream = endpoint.post("/endpoints/flux/plain?stream=true", content="a fox")
        assert stream.text == 'event: error\ndata: {"oops": "no pixels", "at": "/plain"}\n\n'
