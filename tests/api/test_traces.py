"""What a collector of traces is told: one trace from the request to the picture, over processes, without its words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.job_server import ASYNC, ended, serving_jobs
from tests.fakes import DEADLINE_S, FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server
from tests.otlp_collector import Collector, collecting
from tests.waiting import eventually
from tests.webhook_receiver import Receiver, receiving

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
SECRET_WORDS = "the vault opens at dawn"
ASKED = {"prompt": SECRET_WORDS, "size": "64x64", "n": 2, "num_inference_steps": 3}
SERVER, CLIENT, CONSUMER = 2, 3, 5


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@pytest.fixture
def live(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=darkroom")
    with live_server(api_key="key-of-the-server") as server:
        yield server


def post(server: LiveServer, body: object = ASKED, **headers: str) -> httpx.Response:
    headers = {"Authorization": "Bearer key-of-the-server", **headers}
    return httpx.post(f"{server.url}/v1/images/generations?x=y", json=body, headers=headers, timeout=DEADLINE_S)


def test_one_trace_leads_from_the_request_through_every_stage_of_each_picture(
    live: LiveServer, collector: Collector
) -> None:
    response = post(live, traceparent=TRACEPARENT, **{"x-request-id": "mine"})

    assert response.status_code == 200
    (root,) = collector.wait_for("POST /v1/images/generations")
    (generate,) = collector.wait_for("generate")
    assert (root.trace_id, root.parent_id, root.kind) == (TRACE_ID, PARENT_ID, SERVER)
    assert (root.attributes["http.response.status_code"], root.attributes["safelight.request_id"]) == (200, "mine")
    assert (generate.parent_id, generate.attributes["safelight.num_images"]) == (root.span_id, 2)
    stages = [each for each in collector.spans if each.parent_id == generate.span_id]
    assert {each.trace_id for each in stages} == {TRACE_ID}
    told = sorted(
        (each.name, each.attributes["safelight.image_index"], each.attributes.get("safelight.step", 0))
        for each in stages
    )
    assert told == [
        *[("decode", 0, 0), ("decode", 1, 0), ("encode", 0, 0), ("encode", 1, 0)],
        *[("image_encode", 0, 0), ("image_encode", 1, 0), ("queue", 0, 0)],
        *[("step", image, step) for image in (0, 1) for step in (1, 2, 3)],
    ]
    assert max(each.attributes.get("safelight.batch_rows", 0) for each in stages) == 2
    assert all(each.started_ns <= each.ended_ns for each in stages)


def test_the_stages_are_those_of_the_replicas_process(cold: None, live: LiveServer, collector: Collector) -> None:
    post(live)

    pid = live.get("/health/ready").json()["replicas"][0]["pid"]
    assert {each.attributes["process.pid"] for each in collector.wait_for("step", 6)} == {pid}


def test_neither_words_nor_keys_nor_queries_are_in_a_trace(live: LiveServer, collector: Collector) -> None:
    post(live, {**ASKED, "negative_prompt": "grey walls"})
    post(live, {**ASKED, "prompt": f"FAIL_STEP {SECRET_WORDS}"})
    post(live, {**ASKED, "size": SECRET_WORDS})
    post(live, Authorization="Bearer another-key")

    collector.wait_for("POST /v1/images/generations", 3)
    eventually(lambda: any(each.attributes.get("http.response.status_code") == 401 for each in collector.spans))
    for hidden in (SECRET_WORDS, "grey walls", "key-of-the-server", "another-key", "x=y"):
        assert hidden.encode() not in collector.raw
    assert {each["x-tenant"] for each in collector.headers} == {"darkroom"}
    assert {each.resource["service.name"] for each in collector.spans} == {"safelight"}


def test_a_failure_is_told_as_its_kind(live: LiveServer, collector: Collector) -> None:
    post(live, {**ASKED, "prompt": "FAIL_STEP"})

    (generate,) = collector.wait_for("generate")
    (root,) = collector.wait_for("POST /v1/images/generations")
    assert (generate.is_error, generate.attributes["error.type"]) == (True, "EngineFailure")
    assert (root.is_error, root.attributes["http.response.status_code"]) == (True, 500)


def test_a_request_that_runs_again_says_so(collector: Collector, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with live_server(FakeDeployment(num_replicas=2, options=FakeEngineOptions(gate=str(gate.path)))) as server:
        eventually(lambda: {each["state"] for each in server.get("/health/ready").json()["replicas"]} == {"ready"})
        gate.open()
        response = post(server, {"prompt": "EXIT", "size": "64x64"})

    assert response.status_code == 503
    (generate,) = collector.named("generate")
    (root,) = collector.named("POST /v1/images/generations")
    assert "not answered (ReplicaLost): the request runs again" in root.events
    assert generate.attributes["error.type"] == "ReplicaLost"


def test_a_client_that_leaves_ends_its_trace_with_the_steps_that_were_run(collector: Collector, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with live_server(FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))) as server:
        gate.allow(2)
        with httpx.stream("POST", f"{server.url}/score", json={"inputs": "a"}, headers={"Accept": "text/event-stream"}):
            collector.wait_for("step", 2)
        (generate,) = collector.wait_for("generate")
        gate.open()

    assert generate.events == ("the client left",)
    assert len(collector.named("step")) == 2


def test_who_only_looks_is_not_traced(live: LiveServer, collector: Collector) -> None:
    live.get("/health/ready")
    live.get("/metrics")
    post(live)

    collector.wait_for("POST /v1/images/generations")
    assert [each.name for each in collector.spans if each.kind == SERVER] == ["POST /v1/images/generations"]


def test_a_trace_that_its_client_does_not_keep_is_not_kept_here(live: LiveServer, collector: Collector) -> None:
    post(live, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00")
    post(live)

    collector.wait_for("POST /v1/images/generations")
    assert TRACE_ID not in {each.trace_id for each in collector.spans}


def test_a_job_goes_on_in_the_trace_of_its_request_and_so_does_its_webhook(
    collector: Collector, tmp_path: Path, dispatcher: object
) -> None:
    with (
        receiving(Receiver()) as receiver,
        serving_jobs(dispatcher, tmp_path) as connect,  # type: ignore[arg-type]
    ):
        client = connect(webhooks_to_private_addresses=True)
        headers = {**ASYNC, "Webhook-Url": receiver.url, "traceparent": TRACEPARENT, "tracestate": "vendor=1"}
        job = ended(client, client.post("/score", json={"inputs": SECRET_WORDS}, headers=headers))
        assert job["state"] == "succeeded"
        (request,) = [each for each in collector.wait_for("POST") if each.kind == SERVER and each.trace_id == TRACE_ID]
        (run,) = [each for each in collector.wait_for("POST /score") if each.kind == CONSUMER]
        (webhook,) = collector.wait_for("webhook")

    assert request.parent_id == PARENT_ID
    assert (run.trace_id, run.parent_id) == (TRACE_ID, request.span_id)
    assert (webhook.trace_id, webhook.kind) == (TRACE_ID, CLIENT)
    assert receiver.deliveries[0].headers["traceparent"] == f"00-{TRACE_ID}-{webhook.span_id}-01"
    assert receiver.deliveries[0].headers["tracestate"] == "vendor=1"
    assert SECRET_WORDS.encode() not in collector.raw


def test_without_traces_a_webhook_still_gets_its_requests_place_in_them(tmp_path: Path, dispatcher: object) -> None:
    with (
        receiving(Receiver()) as receiver,
        serving_jobs(dispatcher, tmp_path) as connect,  # type: ignore[arg-type]
    ):
        client = connect(webhooks_to_private_addresses=True)
        headers = {**ASYNC, "Webhook-Url": receiver.url, "traceparent": TRACEPARENT}
        ended(client, client.post("/score", json={"inputs": "a"}, headers=headers))
        eventually(lambda: bool(receiver.deliveries))

    assert receiver.deliveries[0].headers["traceparent"] == TRACEPARENT


IMPORTING = """
import io, json, os, sys
from contextlib import redirect_stderr
from safelight.settings import Settings
from safelight.server.app import create_app
from tests.api.fake_dispatcher import FakeDispatcher
environment = dict(os.environ)
for variables in json.loads(sys.argv[1]):
    os.environ.clear()
    os.environ.update(environment | variables)
    with redirect_stderr(io.StringIO()) as said:
        create_app(Settings(), FakeDispatcher())
    print(json.dumps(["opentelemetry.sdk" in sys.modules, "nothing is traced" in said.getvalue()]))
"""


def test_the_sdk_is_imported_only_where_an_endpoint_is_set() -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    cases = [
        {},
        endpoint | {"OTEL_SDK_DISABLED": "true"},
        endpoint | {"OTEL_TRACES_EXPORTER": "none"},
        endpoint | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"},
    ]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, json.dumps(cases)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )

    told = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert told == [(False, False), (False, False), (False, False), (False, True), (True, False)]
