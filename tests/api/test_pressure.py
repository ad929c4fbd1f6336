"""Too many requests, too slow ones, and replicas that are not there: what the wire says, through a real server."""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server
from tests.waiting import eventually

BODIES: dict[str, dict[str, Any]] = {
    "/predict": {"inputs": "a fox"},
    "/score": {"inputs": "a fox"},
    "/v1/images/generations": {"prompt": "a fox"},
}


def post(server: LiveServer, path: str, **values: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=BODIES[path] | values, timeout=60)


def code_of(response: httpx.Response) -> str | None:
    error = response.json()["error"]
    return None if isinstance(error, str) else error["code"]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_one_more_than_the_queue_holds_gets_429_at_once_and_the_others_their_pictures(
    gate: Gate, pool: ThreadPoolExecutor
) -> None:
    deployment = FakeDeployment(
        options=FakeEngineOptions(gate=str(gate.path)), max_concurrent_requests=1, max_queued_requests=1
    )
    with live_server(deployment) as server:
        admitted: list[Future[httpx.Response]] = [pool.submit(post, server, "/score")]
        eventually(lambda: server.count("safelight_running") == 1)
        admitted.append(pool.submit(post, server, "/predict"))
        eventually(lambda: server.count("safelight_queue_depth") == 1)

        refused = [post(server, path) for path in BODIES]

        assert [response.status_code for response in refused] == [429, 429, 429]
        assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
        assert [code_of(response) for response in refused] == [None, "rate_limit_exceeded", "rate_limit_exceeded"]
        gate.open()
        assert [each.result().status_code for each in admitted] == [200, 200]


def test_a_full_queue_is_told_before_the_body_is_sent_but_to_nobody_without_the_key(
    gate: Gate, pool: ThreadPoolExecutor
) -> None:
    deployment = FakeDeployment(
        options=FakeEngineOptions(gate=str(gate.path)), max_concurrent_requests=1, max_queued_requests=0
    )
    key = {"Authorization": "Bearer k"}
    with live_server(deployment, api_key="k") as server:
        admitted = pool.submit(httpx.post, f"{server.url}/score", json=BODIES["/score"], headers=key, timeout=60)
        eventually(lambda: server.count("safelight_running") == 1)

        told = [status_before_the_body(server, path, key) for path in (*BODIES, "/v1/images/edits")]

        assert told == [429] * 4
        assert status_before_the_body(server, "/score", {}) == 401
        gate.open()
        assert admitted.result().status_code == 200


def status_before_the_body(server: LiveServer, path: str, headers: dict[str, str]) -> int:
    """The status that a client reads which has sent nothing but the header yet."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("POST", path)
    for name, value in {"Content-Type": "application/json", "Content-Length": "1000", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("path", BODIES)
def test_a_request_older_than_its_timeout_gets_408(gate: Gate, path: str) -> None:
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))
    with live_server(deployment, request_timeout_s=0.2) as server:
        response = post(server, path)
        gate.open()

    assert response.status_code == 408
    assert code_of(response) in (None, "timeout")
    assert "retry-after" not in response.headers


@pytest.mark.parametrize("path", BODIES)
def test_while_the_model_loads_the_server_is_alive_but_not_ready_and_answers_503(tmp_path: Path, path: str) -> None:
    deployment = FakeDeployment(options=FakeEngineOptions(load_gate=str(tmp_path / "loaded")))
    with live_server(deployment, is_awaited=False) as server:
        ready, early = httpx.get(f"{server.url}/health/ready"), post(server, path)
        (tmp_path / "loaded").touch()
        eventually(lambda: httpx.get(f"{server.url}/health/ready").status_code == 200)
        late = post(server, path)

    assert (ready.status_code, early.status_code, late.status_code) == (503, 503, 200)
    assert ready.json()["replicas"][0]["state"] in ("starting", "loading")
    assert early.headers["retry-after"]


def test_a_model_that_cannot_be_loaded_says_why_on_health_ready() -> None:
    deployment = FakeDeployment(options=FakeEngineOptions(load_error="no weights in /models/x"))
    with live_server(deployment, is_awaited=False) as server:
        eventually(lambda: httpx.get(f"{server.url}/health/ready").json()["replicas"][0]["state"] == "failed")

        ready = httpx.get(f"{server.url}/health/ready")

    assert ready.status_code == 503
    assert ready.json()["replicas"][0]["detail"] == "no weights in /models/x"


def test_a_killed_replica_is_a_retriable_503_and_the_next_request_is_served(
    gate: Gate, pool: ThreadPoolExecutor
) -> None:
    with live_server(FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))) as server:
        running = pool.submit(post, server, "/v1/images/generations")
        gate.allow(1)
        eventually(lambda: server.count("safelight_transformer_calls_total") == 1)

        os.kill(httpx.get(f"{server.url}/health/ready").json()["replicas"][0]["pid"], signal.SIGKILL)

        lost = running.result()
        eventually(lambda: httpx.get(f"{server.url}/health/ready").status_code == 200)
        gate.open()
        assert (lost.status_code, code_of(lost)) == (503, "replica_lost")
        assert lost.headers["retry-after"]
        assert post(server, "/score").status_code == 200
        assert server.count("safelight_replica_restarts_total") == 1


@pytest.mark.parametrize("where", ["FAIL_START", "FAIL_STEP", "FAIL_ROW", "FAIL_DECODE"])
def test_a_picture_that_the_model_cannot_make_is_a_500_and_the_next_one_is_made(server: LiveServer, where: str) -> None:
    failed = post(server, "/v1/images/generations", prompt=where)

    assert (failed.status_code, code_of(failed)) == (500, "engine_failure")
    assert "Traceback" not in failed.text
    assert post(server, "/score").status_code == 200


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as server:
        yield server
