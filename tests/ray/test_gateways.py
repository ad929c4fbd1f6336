"""Several gateways with one PostgreSQL before one cluster: its replicas are everybody's, and each request's its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.gateways import Gateway, gateway, gateways, leader_pid, serve_flux
from tests.e2e.online_client import OnlineClient
from tests.e2e.test_gateway_faults import send_job, state_of
from tests.fakes import Gate
from tests.postgresql import PostgreSQL, postgresql
from tests.ray.conftest import SharedCluster
from tests.waiting import eventually


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with postgresql() as running:
        yield running


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    gate = Gate(tmp_path / "gate")
    gate.open()
    return gate


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    """What is loaded waits while it is away."""
    file = tmp_path / "loads"
    file.touch()
    return file


@pytest.fixture
def settings(shared_cluster: SharedCluster, gate: Gate, loads: Path) -> dict[str, str]:
    return {
        "SAFELIGHT_RUNTIME": "ray",
        "SAFELIGHT_RAY_ADDRESS": shared_cluster.address,
        "FAKE_ENGINE_GATE": str(gate.path),
        "FAKE_ENGINE_LOAD_GATE": str(loads),
    }


def test_gateways_share_replicas_tell_each_count_once_and_take_over_from_one_that_dies(
    database: PostgreSQL, settings: dict[str, str], gate: Gate, loads: Path, tmp_path: Path
) -> None:
    with gateways(tmp_path, database.url, **settings) as (a, b), ThreadPoolExecutor() as pool:
        key = serve_flux(a.client, tmp_path / "model", requestSettings={"maxConcurrentRequestsPerInstance": 8})
        eventually(lambda: b.client.draw(key).status_code == 200)
        pid = replica_of(b.client, key)["pid"]
        assert replica_of(a.client, key)["pid"] == pid
        _check_that_changes_reach_both(a.client, b.client, key)
        key = a.client.key()
        _check_that_counts_add_up(a.client, b.client, key)

        gate.close()
        at_a = [pool.submit(draw, a.client, key, f"a {index}") for index in range(3)]
        at_b = [pool.submit(draw, b.client, key, f"b {index}") for index in range(3)]
        eventually(lambda: [running(each) for each in (a, b)] == [3, 3])
        loads.unlink()
        operation = httpx.URL(a.client.begin_deploy("green").headers["azure-asyncoperation"])
        jobs = [send_job(a.client, key, f"job {index}") for index in range(3)]
        a.server.kill()
        eventually(lambda: leader_pid(database.url) == b.server.pid)
        loads.touch()
        gate.open()

        assert all(isinstance(each.exception(), httpx.TransportError) for each in at_a)
        answers = [each.result() for each in at_b]
        assert [each.status_code for each in answers] == [200] * 3
        assert [each.json() for each in answers] == [draw(b.client, key, f"b {index}").json() for index in range(3)]
        assert len({each.content for each in answers}) == 3
        begun = httpx.Response(200, headers={"azure-asyncoperation": operation.raw_path.decode()})
        assert b.client.finish(begun)["status"] == "Succeeded"
        for job in jobs:
            eventually(lambda: state_of(b.client, key, job) == "succeeded")  # noqa: B023
        assert replica_of(b.client, key)["pid"] == pid  # nothing was loaded again
        pids = [replica_of(b.client, key, deployment)["pid"] for deployment in ("blue", "green")]
        with gateway(tmp_path / "c", database.url, **settings) as c:
            eventually(lambda: draw(c.client, key, "c").status_code == 200)
            assert replica_of(c.client, key)["pid"] == pid

    eventually(lambda: not any(psutil.pid_exists(each) for each in pids))  # they end with the last gateway


def _check_that_changes_reach_both(a: OnlineClient, b: OnlineClient, old: str) -> None:
    a.arm("POST", "/onlineEndpoints/flux/regenerateKeys", {"keyType": "Primary"})
    eventually(lambda: b.draw(old).status_code == 401)
    key = a.key()
    assert b.deploy("green")["status"] == "Succeeded"
    b.create_endpoint(traffic={"green": 100})
    for each in (a, b):
        eventually(lambda: each.draw(key).headers.get("azureml-model-deployment") == "green")  # noqa: B023
    b.create_endpoint(traffic={"blue": 100})
    assert b.finish(b.arm("DELETE", "/onlineEndpoints/flux/deployments/green"))["status"] == "Succeeded"
    for each in (a, b):
        eventually(lambda: each.draw(key).headers.get("azureml-model-deployment") == "blue")  # noqa: B023
    job = send_job(a, key, "at a")
    eventually(lambda: state_of(b, key, job) == "succeeded")


def _check_that_counts_add_up(a: OnlineClient, b: OnlineClient, key: str) -> None:
    before = num_pictures(a, b)
    for client in (a, b, b, a, b):
        assert client.draw(key).status_code == 200
    eventually(lambda: num_pictures(a, b) >= before + 5)
    assert num_pictures(a, b) == before + 5


def draw(client: OnlineClient, key: str, prompt: str) -> httpx.Response:
    return client.draw(key, body={"inputs": prompt, "parameters": {"width": 64, "height": 64, "seed": 7}})


def replica_of(client: OnlineClient, key: str, deployment: str = "blue") -> Mapping[str, Any]:
    headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": deployment}
    replica: Mapping[str, Any] = client.get("/endpoints/flux/health/ready", headers=headers).json()["replicas"][0]
    return replica


def running(each: Gateway) -> float:
    return total(each.client, "safelight_running", deployment="blue")


def num_pictures(*clients: OnlineClient) -> float:
    """As a scrape of all gateways adds them up."""
    return sum(
        total(each, "safelight_stage_seconds_count", stage="image_encode", deployment="blue") for each in clients
    )


def total(client: OnlineClient, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())
