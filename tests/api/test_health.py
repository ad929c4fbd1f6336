"""What load balancers and orchestrators ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from safelight.disk import Disk
from safelight.server.health import create_router
from safelight.serving.backends.protocol import ReplicaState
from tests.api.fake_dispatcher import FakeDispatcher
from tests.full_disk import no_file_grows


@pytest.mark.parametrize("path", ["/", "/health"])
def test_the_routes_of_the_container_answer_ok(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert (response.status_code, response.text) == (200, "Ok")
    assert response.headers["content-type"].startswith("text/plain")
    assert client.head(path).status_code == 200


def test_ready_when_a_picture_can_be_made(client: TestClient) -> None:
    response = client.get("/health/ready")

    assert response.status_code == 200
    assert response.json()["ready"] is True
    assert [client.head(f"/health/{each}").status_code for each in ("ready", "live")] == [200, 200]


def test_not_ready_says_which_replica_is_in_which_state(client: TestClient, dispatcher: FakeDispatcher) -> None:
    dispatcher.is_ready = False

    response = client.get("/health/ready")

    assert (response.status_code, client.head("/health/ready").status_code) == (503, 503)
    assert response.json()["ready"] is False
    assert response.json()["replicas"] == [
        {"name": "replica 0", "state": "loading", "detail": "killed by SIGKILL", "pid": 7, "restarts": 0}
    ]


@pytest.mark.parametrize("key", [True, False])
def test_a_gateway_that_still_loads_what_others_serve_is_not_ready_and_says_so(
    dispatcher: FakeDispatcher, key: bool
) -> None:
    app, is_behind = FastAPI(), [True]
    app.include_router(
        create_router(dispatcher, Disk(), is_known=lambda _: key, is_behind=lambda: is_behind[0])  # type: ignore[arg-type]
    )
    client = TestClient(app)

    response = client.get("/health/ready")

    assert response.status_code == 503
    assert (response.json()["ready"], response.json()["cause"]) == (False, "joining")
    is_behind[0] = False
    assert client.get("/health/ready").status_code == 200


def test_a_replica_that_runs_elsewhere_says_where(client: TestClient, dispatcher: FakeDispatcher) -> None:
    dispatcher.states, dispatcher.whereabouts = (ReplicaState.READY,), {"node": "gpu-2"}

    (told,) = client.get("/health/ready").json()["replicas"]

    assert told == {"name": "r", "state": "ready", "detail": "", "pid": None, "node": "gpu-2", "restarts": 0}


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"api-key": ""}, {"Authorization": "Basic k"}]
)
@pytest.mark.parametrize(
    ("is_ready", "told"), [(True, {"ready": True, "cause": None}), (False, {"ready": False, "cause": "loading"})]
)
def test_who_has_not_the_key_learns_whether_it_is_ready_and_one_word(
    connect: Callable[..., TestClient],
    dispatcher: FakeDispatcher,
    headers: dict[str, str],
    is_ready: bool,
    told: dict[str, object],
) -> None:
    dispatcher.is_ready = is_ready

    response = connect(api_key="k").get("/health/ready", headers=headers)

    assert (response.status_code, response.json()) == (200 if is_ready else 503, told)


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer k"}, {"api-key": "k"}])
def test_who_has_the_key_learns_all(
    connect: Callable[..., TestClient], client: TestClient, headers: dict[str, str]
) -> None:
    response = connect(api_key="k").get("/health/ready", headers=headers)

    assert response.json() == client.get("/health/ready").json()
    assert response.json()["replicas"][0]["pid"] == 7


@pytest.mark.parametrize(
    ("states", "cause"),
    [
        (["failed", "loading", "starting"], "loading"),
        (["failed", "starting"], "starting"),
        (["failed", "failed"], "failed"),
        (["ready", "ready"], "draining"),
        (["stopped"], "draining"),
    ],
)
def test_the_word_is_that_of_the_replica_that_is_nearest_to_being_ready(
    connect: Callable[..., TestClient], dispatcher: FakeDispatcher, states: list[str], cause: str
) -> None:
    dispatcher.is_ready = False
    dispatcher.states = tuple(map(ReplicaState, states))

    assert connect(api_key="k").get("/health/ready").json() == {"ready": False, "cause": cause}


def test_a_full_disk_is_a_word_for_strangers_and_a_sentence_for_who_has_the_key(
    connect: Callable[..., TestClient], tmp_path: Path
) -> None:
    client, key = connect(api_key="k", data_dir=tmp_path), {"Authorization": "Bearer k"}
    with no_file_grows():
        client.post("/v1/images/generations", json={"prompt": "a fox", "response_format": "url"}, headers=key)

    assert client.get("/health/ready").json() == {"ready": True, "cause": "storage"}
    assert (
        client.get("/health/ready", headers=key).json()["storage"].startswith("the store of pictures takes no writes")
    )


def test_alive_even_when_not_ready(client: TestClient, dispatcher: FakeDispatcher) -> None:
    dispatcher.is_ready = False

    assert client.get("/health/live").status_code == 200
