"""A client that comes while the model loads waits for it, as long as it may be held, and no longer than it stays."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fakes import DEADLINE_S, FakeDeployment, FakeEngineOptions
from tests.live_server import LiveServer, live_server
from tests.waiting import eventually

BODIES = {
    "/v1/images/generations": {"prompt": "a fox"},
    "/openai/deployments/fake/images/generations": {"prompt": "a fox"},
    "/": {"inputs": "a fox"},
    "/score": {"inputs": "a fox"},
}


@contextmanager
def loading_server(gate: Path, *, hold_s: float = 60, queue: int = 64, **settings: object) -> Iterator[LiveServer]:
    """Its model loads until `gate` exists."""
    deployment = FakeDeployment(
        options=FakeEngineOptions(load_gate=str(gate)), hold_while_loading_s=hold_s, max_queued_requests=queue
    )
    try:
        with live_server(deployment, is_awaited=False, **settings) as server:
            yield server
            gate.touch()
    finally:
        gate.touch()


def post(server: LiveServer, path: str, **body: object) -> httpx.Response:
    return httpx.post(server.url + path, json=BODIES[path] | body, timeout=DEADLINE_S)


def num_held(server: LiveServer) -> float:
    return server.count("safelight_queue_depth")


def test_a_request_that_comes_while_the_model_loads_gets_its_picture(tmp_path: Path) -> None:
    with loading_server(tmp_path / "gate") as server, ThreadPoolExecutor(8) as pool:
        plain = [pool.submit(post, server, path) for path in BODIES]
        streamed = pool.submit(post, server, "/v1/images/generations", stream=True)
        eventually(lambda: num_held(server) == 5)
        health = server.get("/health/ready")
        (tmp_path / "gate").touch()

        assert health.status_code == 503
        assert [each.result().status_code for each in plain] == [200] * len(BODIES)
        assert "image_generation.completed" in streamed.result().text
        assert server.count("safelight_requests_total", status="503", dialect="openai") == 0


@pytest.mark.parametrize(("hold_s", "timeout_s"), [(0.05, 60), (60, 0.05)])
@pytest.mark.parametrize("body", [{}, {"stream": True}])
def test_after_its_time_or_the_requests_own_it_gets_503_and_when_to_come_back(
    tmp_path: Path, hold_s: float, timeout_s: float, body: dict[str, object]
) -> None:
    with loading_server(tmp_path / "gate", hold_s=hold_s, request_timeout_s=timeout_s) as server:
        response = post(server, "/v1/images/generations", **body)

        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"
        assert response.json()["error"]["code"] == "not_ready"
        assert num_held(server) == 0


def test_a_client_that_leaves_while_it_is_held_is_forgotten(tmp_path: Path) -> None:
    with loading_server(tmp_path / "gate") as server:
        body = b'{"prompt": "a fox"}'
        head = f"POST /v1/images/generations HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head.encode() + body)
            eventually(lambda: num_held(server) == 1)

        eventually(lambda: num_held(server) == 0)
        (tmp_path / "gate").touch()
        eventually(lambda: server.get("/health/ready").status_code == 200)
        assert server.count("safelight_steps_run_total") == 0


def test_one_more_than_may_wait_gets_429_before_its_body_is_read(tmp_path: Path) -> None:
    with loading_server(tmp_path / "gate", queue=1) as server, ThreadPoolExecutor(1) as pool:
        held = pool.submit(post, server, "/v1/images/generations")
        eventually(lambda: num_held(server) == 1)

        refused = httpx.post(f"{server.url}/v1/images/generations", content=b"no JSON")
        (tmp_path / "gate").touch()

        assert (refused.status_code, held.result().status_code) == (429, 200)
        assert "retry-after" in refused.headers


def test_what_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with loading_server(tmp_path / "gate") as server:
        assert post(server, "/v1/images/generations", size="big").status_code == 400
        assert num_held(server) == 0
