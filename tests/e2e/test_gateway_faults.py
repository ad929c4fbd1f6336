"""What becomes of what is in flight when a gateway is killed, or the database goes away."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateways import Gateway, gateway, gateways, leader_pid, serve_flux
from tests.e2e.online_client import PROMPT, OnlineClient
from tests.fakes import Gate
from tests.postgresql import PostgreSQL, postgresql
from tests.waiting import eventually

SCORE = "/endpoints/flux/score"


@pytest.fixture
def database() -> Iterator[PostgreSQL]:
    with postgresql() as running:
        yield running


@contextmanager
def drawing(client: OnlineClient, key: str) -> Iterator[list[int]]:
    """Requests one after another until the block ends: their statuses."""
    statuses: list[int] = []
    is_over = threading.Event()

    def draw() -> None:
        while not is_over.is_set():
            statuses.append(client.draw(key).status_code)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        thread.join()


def send_job(client: OnlineClient, key: str, idempotency_key: str) -> str:
    """Where the job is."""
    headers = {"Authorization": f"Bearer {key}", "Prefer": "respond-async", "Idempotency-Key": idempotency_key}
    accepted = client.post(SCORE, json=PROMPT, headers=headers)
    assert accepted.status_code == 202, accepted.text
    return accepted.headers["location"]


def state_of(client: OnlineClient, key: str, job: str) -> str:
    return str(client.get(job, headers={"Authorization": f"Bearer {key}"}).json()["state"])


def test_killed_in_the_middle_of_all_it_does_the_leader_is_replaced_and_what_it_accepted_comes_to_its_end(
    tmp_path: Path, database: PostgreSQL
) -> None:
    """What only its own connections knew of fails at once; all that was kept is done by the other one."""
    gate, loads = Gate(tmp_path / "gate"), tmp_path / "loads"
    loads.touch()
    held = {"FAKE_ENGINE_GATE": str(gate.path), "FAKE_ENGINE_LOAD_GATE": str(loads)}
    with (
        gateway(tmp_path / "a", database.url, **held) as a,
        gateway(tmp_path / "b", database.url) as b,
        ThreadPoolExecutor() as pool,
    ):
        key = serve_flux(a.client, tmp_path / "model")
        b.client.wait_until_it_draws(key)
        waiting = pool.submit(a.client.draw, key)
        eventually(lambda: any(each["running"] for each in a.client.arm("GET", "/status").json()["deployments"]))
        loads.unlink()
        operation = a.client.begin_deploy("green").headers["azure-asyncoperation"]
        jobs = [send_job(a.client, key, f"job {index}") for index in range(5)]
        eventually(lambda: state_of(b.client, key, jobs[0]) == "running")
        assert leader_pid(database.url) == a.server.pid

        with drawing(b.client, key) as at_the_other:
            a.server.kill()
            with pytest.raises(httpx.TransportError):
                waiting.result()
            eventually(lambda: leader_pid(database.url) == b.server.pid)
            begun = httpx.Response(200, headers={"azure-asyncoperation": httpx.URL(operation).raw_path.decode()})
            assert b.client.finish(begun)["status"] == "Succeeded"
            for job in jobs:
                eventually(lambda: state_of(b.client, key, job) == "succeeded")  # noqa: B023

        assert set(at_the_other) <= {200, 429}, "jobs that are taken over may have the queue's only place for a moment"
        assert b.client.draw(key, azureml_model_deployment="green").status_code == 200


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_while_the_database_is_away_pictures_are_made_and_all_else_is_told_to_come_again(
    tmp_path: Path, database: PostgreSQL, fault: str
) -> None:
    with gateways(tmp_path, database.url) as both:
        a, b = (each.client for each in both)
        key = serve_flux(a, tmp_path / "model")
        b.wait_until_it_draws(key)
        away, back = (database.stop, database.start) if fault == "stopped" else (database.freeze, database.thaw)

        with drawing(a, key) as at_a, drawing(b, key) as at_b:
            away()
            try:
                for client in (a, b):
                    _check_that_it_is_told(client.arm("GET", "/onlineEndpoints/flux"))
                    job = {"Authorization": f"Bearer {key}", "Idempotency-Key": "while away"}
                    _check_that_it_is_told(client.post(SCORE, json=PROMPT, headers=job))
                    assert client.draw(key).status_code == 200
            finally:
                back()
            eventually(lambda: all(each.arm("GET", "/onlineEndpoints/flux").is_success for each in (a, b)))
            _check_that_all_works(both, key, database)

        assert set(at_a) == set(at_b) == {200}


def _check_that_it_is_told(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "database" in response.text


def _check_that_all_works(both: Sequence[Gateway], key: str, database: PostgreSQL) -> None:
    """Changes arrive again, somebody leads, jobs are done."""
    a, b = (each.client for each in both)
    pids = {each.server.pid for each in both}
    eventually(lambda: leader_pid(database.url) in pids)
    assert b.deploy("green")["status"] == "Succeeded"
    for client in (a, b):
        eventually(lambda: client.draw(key, azureml_model_deployment="green").status_code == 200)  # noqa: B023
    job = send_job(a, key, "after")
    eventually(lambda: state_of(b, key, job) == "succeeded")


def test_a_gateway_that_is_told_to_stop_leaves_the_lead_and_what_it_has_not_finished_to_the_other(
    tmp_path: Path, database: PostgreSQL
) -> None:
    gate = Gate(tmp_path / "gate")
    with (
        gateway(tmp_path / "a", database.url, FAKE_ENGINE_GATE=str(gate.path), SAFELIGHT_DRAIN_TIMEOUT_S="1") as a,
        gateway(tmp_path / "b", database.url) as b,
    ):
        key = serve_flux(a.client, tmp_path / "model")
        b.client.wait_until_it_draws(key)
        job = send_job(a.client, key, "held")
        eventually(lambda: state_of(b.client, key, job) == "running")

        a.server.process.terminate()

        eventually(lambda: state_of(b.client, key, job) == "succeeded")
        assert leader_pid(database.url) == b.server.pid
        assert b.client.deploy("green")["status"] == "Succeeded"
