from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from tests.e2e.gateways import Gateway, gateway, gateways, serve_flux
from tests.e2e.online_client import PROMPT, OnlineClient
from tests.fakes import Gate
from tests.postgresql import postgresql_server
from tests.waiting import eventually

LINK = {"prompt": "a fox", "size": "64x64", "response_format": "url", "n": 1, "seed": 7}


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture(scope="module")
def pair(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Gateway]]:
    """Two gateways; an endpoint `flux` was made at the first one, which leads."""
    with gateways(tmp_path_factory.mktemp("gateways"), database_url) as (a, b):
        b.client.wait_until_it_draws(serve_flux(a.client, tmp_path_factory.mktemp("model")))
        yield a, b


@pytest.fixture
def a(pair: Sequence[Gateway]) -> OnlineClient:
    return pair[0].client


@pytest.fixture
def b(pair: Sequence[Gateway]) -> OnlineClient:
    return pair[1].client


@pytest.fixture
def key(a: OnlineClient) -> str:
    return a.key()


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}


def test_what_one_gateway_deployed_all_of_them_serve_as_the_same_picture(
    a: OnlineClient, b: OnlineClient, key: str
) -> None:
    answers = [client.draw(key) for client in (a, b)]

    assert [each.status_code for each in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


def test_a_gateway_that_joins_is_ready_when_it_serves_what_the_others_do(
    a: OnlineClient, key: str, database_url: str, tmp_path: Path
) -> None:
    """A balancer, or an update that replaces one after the other, sends nothing there until then."""
    loads = tmp_path / "loads"
    with gateway(tmp_path / "c", database_url, FAKE_ENGINE_LOAD_GATE=str(loads)) as c:
        waiting = c.client.get("/health/ready")
        assert (waiting.status_code, waiting.json().get("cause")) == (503, "joining")
        assert a.get("/health/ready").status_code == c.client.get("/health/live").status_code == 200

        loads.touch()
        eventually(lambda: c.client.get("/health/ready").status_code == 200)
        assert c.client.draw(key).status_code == 200


def test_the_administrators_token_of_one_gateway_opens_all(a: OnlineClient, b: OnlineClient) -> None:
    assert a.admin == b.admin
    assert (
        b.arm("GET", "/onlineEndpoints/flux/deployments/blue").json()["properties"]["provisioningState"] == "Succeeded"
    )


def test_a_key_that_is_made_anew_at_one_gateway_is_refused_at_another(a: OnlineClient, b: OnlineClient) -> None:
    old = a.key()
    assert b.draw(old).status_code == 200

    new = a.arm("POST", "/onlineEndpoints/flux/regenerateKeys", {"keyType": "Primary"})
    assert new.is_success

    eventually(lambda: b.draw(old).status_code == 401)
    assert b.draw(a.key()).status_code == 200


@pytest.mark.parametrize("lost", ["notification", "session"])
def test_a_change_arrives_even_when_what_tells_of_it_is_lost(
    a: OnlineClient, b: OnlineClient, database_url: str, lost: str
) -> None:
    trigger = "ALTER TABLE endpoints {} TRIGGER safelight_tell"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'safelight %'"
    old = a.key()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute((trigger.format("DISABLE") if lost == "notification" else end).encode())
        a.arm("POST", "/onlineEndpoints/flux/regenerateKeys", {"keyType": "Primary"})
        connection.execute(trigger.format("ENABLE").encode())

    eventually(lambda: b.draw(old).status_code == 401)


def test_traffic_and_deployments_that_are_changed_at_a_follower_change_at_all(
    a: OnlineClient, b: OnlineClient, key: str
) -> None:
    assert b.deploy("green")["status"] == "Succeeded"
    b.create_endpoint(traffic={"green": 100})

    for client in (a, b):
        eventually(lambda: client.draw(key).headers.get("azureml-model-deployment") == "green")  # noqa: B023

    b.create_endpoint(traffic={"blue": 100})
    assert b.finish(b.arm("DELETE", "/onlineEndpoints/flux/deployments/green"))["status"] == "Succeeded"
    for client in (a, b):
        eventually(lambda: client.draw(key, azureml_model_deployment="green").status_code == 404)  # noqa: B023
        assert client.draw(key).headers["azureml-model-deployment"] == "blue"


def test_an_update_replaces_the_replicas_of_every_gateway_and_no_request_fails(
    pair: Sequence[Gateway], a: OnlineClient, b: OnlineClient, key: str
) -> None:
    pids = [_replica_pids(each) for each in pair]
    statuses: list[int] = []
    is_over = threading.Event()

    def draw(client: OnlineClient) -> None:
        while not is_over.is_set():
            statuses.append(client.draw(key).status_code)

    threads = [threading.Thread(target=draw, args=[client]) for client in (a, b)]
    for thread in threads:
        thread.start()
    try:
        assert b.deploy()["status"] == "Succeeded"
        for each, before in zip(pair, pids, strict=True):
            eventually(lambda: _are_replaced(before, _replica_pids(each)))  # noqa: B023
    finally:
        is_over.set()
        for thread in threads:
            thread.join()

    assert set(statuses) == {200}


def test_a_link_opens_at_any_gateway(a: OnlineClient, b: OnlineClient, key: str) -> None:
    made = a.post("/endpoints/flux/v1/images/generations", json=LINK, headers=bearer(key)).json()
    link = httpx.URL(made["data"][0]["url"])

    opened = [client.get(link.raw_path.decode()) for client in (a, b)]

    assert [each.status_code for each in opened] == [200, 200]
    assert opened[0].content == opened[1].content


def test_one_idempotency_key_at_two_gateways_at_once_is_one_piece_of_work(
    a: OnlineClient, b: OnlineClient, key: str
) -> None:
    headers = bearer(key, Idempotency_Key="once", Prefer="wait=60")
    body = {"inputs": "a fox", "parameters": {"width": 64, "height": 64}}  # each would draw a seed of its own

    def send(client: OnlineClient) -> httpx.Response:
        return client.post("/endpoints/flux/score", json=body, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, [a, b] * 4))

    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) == 1
    assert sum("idempotent-replayed" not in each.headers for each in answers) == 1


def test_a_job_is_seen_and_its_result_read_at_any_gateway(a: OnlineClient, b: OnlineClient, key: str) -> None:
    accepted = a.post("/endpoints/flux/score", json=PROMPT, headers=bearer(key, Prefer="respond-async"))
    assert accepted.status_code == 202
    job = accepted.headers["location"]

    eventually(lambda: b.get(job, headers=bearer(key)).json()["state"] == "succeeded")

    assert b.get(f"{job}/result", headers=bearer(key)).json() == b.draw(key).json()


def test_a_job_that_is_canceled_at_one_gateway_stops_at_another(
    database_url: str, tmp_path: Path, pair: Sequence[Gateway], key: str
) -> None:
    gate = Gate(tmp_path / "gate")
    with gateway(tmp_path / "c", database_url, FAKE_ENGINE_GATE=str(gate.path)) as c:
        eventually(lambda: c.client.get("/endpoints/flux/v1/models", headers=bearer(key)).status_code == 200)
        accepted = c.client.post("/endpoints/flux/score", json=PROMPT, headers=bearer(key, Prefer="respond-async"))
        job = accepted.headers["location"]
        eventually(lambda: c.client.get(job, headers=bearer(key)).json()["state"] == "running")

        canceled = pair[0].client.delete(job, headers=bearer(key))

        assert canceled.json()["state"] == "canceled"
        eventually(lambda: 'safelight_jobs{state="running"} 0.0' in c.client.get("/metrics").text)


def test_gateways_that_start_at_once_on_an_empty_database_migrate_it_once(tmp_path: Path, database_url: str) -> None:
    url = _new_database(database_url, "empty")

    def start(name: str) -> bool:
        with gateway(tmp_path / name, url) as started:
            return started.client.arm("GET", "/onlineEndpoints").is_success

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(start, "abc")) == [True] * 3


def test_a_gateway_with_another_encryption_key_is_refused_with_what_to_set(
    tmp_path: Path, database_url: str, pair: Sequence[Gateway]
) -> None:
    with (
        pytest.raises(AssertionError, match="SAFELIGHT_ENCRYPTION_KEYS"),
        gateway(tmp_path / "c", database_url, SAFELIGHT_ENCRYPTION_KEYS=""),
    ):
        pass


def test_a_deployment_that_nobody_asks_for_leaves_memory_as_it_says_itself_and_comes_back(
    pair: Sequence[Gateway], a: OnlineClient, key: str
) -> None:
    variables = {"environmentVariables": {"SAFELIGHT_IDLE_UNLOAD": "0.5"}}
    assert a.deploy("rare", **variables)["status"] == "Succeeded"
    headers = bearer(key, azureml_model_deployment="rare")

    def is_unloaded() -> bool:
        health = a.get("/endpoints/flux/health/ready", headers=headers).json()
        return [each["state"] for each in health.get("replicas", ())] == ["unloaded"]

    eventually(is_unloaded)
    pids = _replica_pids(pair[0])
    pictures = [a.draw(key, azureml_model_deployment=name).json() for name in ("rare", "blue")]
    job = a.post("/endpoints/flux/score", json=PROMPT, headers=headers | {"Prefer": "respond-async"})

    assert pictures[0] == pictures[1]
    eventually(lambda: a.get(job.headers["location"], headers=headers).json()["state"] == "succeeded")
    assert _replica_pids(pair[0]) - pids or is_unloaded()  # the one that left may still have been ending
    a.finish(a.arm("DELETE", "/onlineEndpoints/flux/deployments/rare"))


def _are_replaced(before: set[int], now: set[int]) -> bool:
    """All but the one of the server's own model."""
    return len(before) == len(now) and len(before & now) == 1


def _replica_pids(each: Gateway) -> set[int]:
    return {child.pid for child in psutil.Process(each.server.pid).children(recursive=True)}


def _new_database(url: str, name: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return str(httpx.URL(url).copy_with(path=f"/{name}"))
