"""What load balancers and orchestrators ask."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.api.fake_dispatcher import FakeDispatcher


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


def test_not_ready_says_which_replica_is_in_which_state(client: TestClient, dispatcher: FakeDispatcher) -> None:
    dispatcher.is_ready = False

    response = client.get("/health/ready")

    assert response.status_code == 503
    assert response.json()["ready"] is False
    assert response.json()["replicas"] == [
        {"name": "replica 0", "state": "loading", "detail": "killed by SIGKILL", "pid": 7, "restarts": 0}
    ]


def test_alive_even_when_not_ready(client: TestClient, dispatcher: FakeDispatcher) -> None:
    dispatcher.is_ready = False

    assert client.get("/health/live").status_code == 200
