"""A model that nobody asks for leaves memory, and whoever asks next has it brought back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fakes import DEADLINE_S, FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server
from tests.waiting import eventually

IDLE_S = 0.3
PROMPT = {"inputs": "a fox", "parameters": {"seed": 7}}


@contextmanager
def forgetful_server(*, hold_s: float = 60, replicas: int = 1, **options: str) -> Iterator[LiveServer]:
    deployment = FakeDeployment(
        options=FakeEngineOptions(**options),  # type: ignore[arg-type]
        num_replicas=replicas,
        hold_while_loading_s=hold_s,
        idle_unload_s=IDLE_S,
    )
    with live_server(deployment) as server:
        yield server


def post(server: LiveServer, body: object = PROMPT, path: str = "/") -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=DEADLINE_S)


def states(server: LiveServer) -> set[str]:
    return {each["state"] for each in server.get("/health/ready").json()["replicas"]}


def pids(server: LiveServer) -> set[int]:
    return {each["pid"] for each in server.get("/health/ready").json()["replicas"] if each.get("pid")}


def test_left_alone_its_processes_end_and_the_next_request_gets_the_same_picture_from_new_ones() -> None:
    with forgetful_server(replicas=2) as server:
        before = post(server)
        eventually(lambda: len(pids(server)) == 2 or states(server) == {"unloaded"})
        eventually(lambda: states(server) == {"unloaded"} and not pids(server))
        steps = server.count("safelight_transformer_calls_total")

        with ThreadPoolExecutor(8) as pool:
            after = list(pool.map(lambda _: post(server), range(8)))

        assert {each.status_code for each in after} == {200}
        assert {each.content for each in after} == {before.content}
        assert server.count("safelight_transformer_calls_total") > steps > 0


def test_unloaded_it_is_still_a_server_that_a_balancer_sends_requests_to_and_no_process_is_left() -> None:
    own = psutil.Process()
    others = set(own.children())  # of tests that ran before in this process
    with forgetful_server() as server:
        post(server)
        eventually(lambda: states(server) == {"unloaded"})
        eventually(lambda: set(own.children()) <= others)

        response = server.get("/health/ready")

        assert (response.status_code, response.json()["ready"]) == (200, True)
        assert server.count("safelight_ready") == 1


@pytest.mark.parametrize("hold_s", [0, 0.05])
def test_a_request_that_is_not_held_until_it_is_back_is_told_to_come_again_and_finds_it_then(
    tmp_path: Path, hold_s: float
) -> None:
    loads = tmp_path / "loads"
    loads.touch()
    with forgetful_server(hold_s=hold_s, load_gate=str(loads)) as server:
        eventually(lambda: states(server) == {"unloaded"})
        loads.unlink()

        refused = post(server)

        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        eventually(lambda: states(server) == {"loading"})
        loads.touch()
        eventually(lambda: post(server).status_code == 200)


def test_what_takes_longer_than_the_idle_time_is_not_cut_off(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with forgetful_server(gate=str(gate.path)) as server, ThreadPoolExecutor() as pool:
        picture = pool.submit(post, server)
        eventually(lambda: server.count("safelight_running") == 1)
        for _ in range(3):
            gate.allow(1)
            with pytest.raises(TimeoutError):
                picture.result(timeout=2 * IDLE_S)
            assert states(server) == {"ready"}
        gate.open()

        assert picture.result().status_code == 200


def test_a_stream_and_openais_route_bring_it_back_too() -> None:
    with forgetful_server() as server:
        for body in ({"prompt": "a fox"}, {"prompt": "a fox", "stream": True}):
            eventually(lambda: states(server) == {"unloaded"})
            assert post(server, body, "/v1/images/generations").status_code == 200
