"""The client leaves, the work stops: through a real server, with a socket that closes, on both dialects."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server
from tests.waiting import eventually, is_eventually

REQUESTS: dict[str, dict[str, Any]] = {
    "/": {"inputs": "a fox", "parameters": {"num_inference_steps": 50}},
    "/predict": {"inputs": "a fox", "parameters": {"num_inference_steps": 50}},
    "/score": {"inputs": "a fox", "parameters": {"num_inference_steps": 50}},
    "/v1/images/generations": {"prompt": "a fox", "num_inference_steps": 50},
    "/openai/deployments/fake/images/generations": {"prompt": "a fox", "num_inference_steps": 50},
}
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/images/generations": REQUESTS["/v1/images/generations"] | {"partial_images": 3},
    "/score": REQUESTS["/score"],
}


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def server(gate: Gate) -> Iterator[LiveServer]:
    with live_server(FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))) as server:
        yield server


def send(
    server: LiveServer, path: str, *, connection: socket.socket | None = None, accept: str = "*/*"
) -> socket.socket:
    content = json.dumps((STREAMS if "event" in accept else REQUESTS)[path]).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    connection = connection or socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + content)
    return connection


def calls(server: LiveServer) -> float:
    return server.count("safelight_transformer_calls_total")


def let_steps_pass_until_the_rest_is_saved(server: LiveServer, gate: Gate) -> None:
    """One step at a time, so that none begins before the replica could read what came in during the last one."""
    while not is_eventually(lambda: server.count("safelight_steps_saved_total") > 0, timeout_s=1):
        gate.allow(1)


@pytest.mark.parametrize("path", REQUESTS)
def test_after_the_client_left_no_more_than_one_transformer_call_begins(
    server: LiveServer, gate: Gate, path: str
) -> None:
    connection = send(server, path)
    gate.allow(2)
    eventually(lambda: calls(server) == 2)  # and the third is running: it waits at the gate

    connection.close()
    eventually(lambda: server.count("safelight_requests_total", status="499") == 1)
    let_steps_pass_until_the_rest_is_saved(server, gate)

    assert calls(server) <= 4
    assert server.count("safelight_steps_saved_total") >= 46
    assert server.count("safelight_running") == 0


@pytest.mark.parametrize("path", ["/score", "/v1/images/generations"])
def test_the_second_request_of_a_connection_is_stopped_as_well(server: LiveServer, gate: Gate, path: str) -> None:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    send(server, path, connection=connection)
    gate.allow(1)
    eventually(lambda: calls(server) == 1)

    connection.close()
    eventually(lambda: server.count("safelight_requests_total", status="499") == 1)
    let_steps_pass_until_the_rest_is_saved(server, gate)

    assert calls(server) <= 3


def test_a_request_that_waits_for_its_turn_is_never_begun_once_its_client_left(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)), max_concurrent_requests=1)
    with live_server(deployment) as server, send(server, "/score"):
        eventually(lambda: server.count("safelight_running") == 1)
        waiting = send(server, "/v1/images/generations")
        eventually(lambda: server.count("safelight_queue_depth") == 1)

        waiting.close()
        eventually(lambda: server.count("safelight_requests_total", dialect="openai", status="499") == 1)
        gate.open()
        eventually(lambda: server.count("safelight_requests_total", dialect="huggingface", status="200") == 1)

        assert calls(server) == 50


def test_others_in_the_same_batch_get_their_pictures(server: LiveServer, gate: Gate) -> None:
    leaving, staying = send(server, "/score"), send(server, "/score")
    gate.allow(4)
    eventually(lambda: server.count("safelight_steps_run_total") >= 4)

    leaving.close()
    eventually(lambda: server.count("safelight_requests_total", status="499") == 1)
    gate.open()

    assert staying.recv(4096).startswith(b"HTTP/1.1 200")
    staying.close()


def test_after_a_client_left_the_next_one_is_served(server: LiveServer, gate: Gate) -> None:
    send(server, "/score").close()
    eventually(lambda: server.count("safelight_requests_total", status="499") == 1)
    gate.open()

    response = httpx.post(f"{server.url}/score", json={"inputs": "a fox"}, timeout=60)

    assert response.status_code == 200


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_that_its_client_leaves_stops_with_its_generation(server: LiveServer, gate: Gate, path: str) -> None:
    connection = send(server, path, accept="text/event-stream")
    gate.allow(2)
    eventually(lambda: calls(server) == 2)
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")

    connection.close()
    eventually(lambda: server.count("safelight_running") == 0)
    let_steps_pass_until_the_rest_is_saved(server, gate)

    assert calls(server) <= 4
    assert server.count("safelight_steps_saved_total") >= 46


def test_a_stream_that_waits_for_its_turn_is_never_begun_once_its_client_left(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)), max_concurrent_requests=1)
    with live_server(deployment) as server, send(server, "/score"):
        eventually(lambda: server.count("safelight_running") == 1)
        waiting = send(server, "/v1/images/generations", accept="text/event-stream")
        eventually(lambda: server.count("safelight_queue_depth") == 1)

        waiting.close()
        eventually(lambda: server.count("safelight_queue_depth") == 0)
        gate.open()
        eventually(lambda: server.count("safelight_requests_total", dialect="huggingface", status="200") == 1)

        assert calls(server) == 50
