"""The key: who has it gets in, who has not is told so in the dialect's words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher

CLOSED = [
    ("POST", "/"),
    ("POST", "/predict"),
    ("POST", "/score"),
    ("POST", "/v1/images/generations"),
    ("POST", "/openai/deployments/tiny/images/generations"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("GET", "/v1/nope"),
    ("GET", "/nope"),
    ("GET", "/health%3F"),
    ("GET", "/docs%23"),
    ("GET", "/health/live%3F/../../v1/models"),
    ("GET", "/metrics"),
]
OPEN = ["/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json"]


@pytest.fixture(scope="module")
def guarded_server(shared: tuple[TestClient, FakeDispatcher]) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(api_key="s3cret"), shared[1])) as client:  # type: ignore[arg-type]
        yield client


@pytest.fixture
def guarded(guarded_server: TestClient, dispatcher: FakeDispatcher) -> TestClient:
    """One for all tests: it keeps nothing between two requests."""
    return guarded_server


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer s3cre"},
        {"Authorization": "Bearer s3cret2"},
        {"Authorization": "Basic s3cret"},
        {"Authorization": "s3cret"},
        {"Authorization": b"Bearer s\xe9cret"},
        {"api-key": "wrong"},
    ],
    ids=str,
)
def test_without_the_right_key_everything_but_health_and_docs_is_closed(
    guarded: TestClient, dispatcher: FakeDispatcher, method: str, path: str, headers: dict[str, str | bytes]
) -> None:
    response = guarded.request(method, path, headers=headers, json={"inputs": "a", "prompt": "a"})

    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert "s3cret" not in response.text
    assert dispatcher.requests == []


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer s3cret"}, {"authorization": "bearer s3cret"}, {"api-key": "s3cret"}],
    ids=str,
)
def test_the_right_key_opens(guarded: TestClient, headers: dict[str, str]) -> None:
    statuses = {
        guarded.post("/score", json={"inputs": "a"}, headers=headers).status_code,
        guarded.post("/v1/images/generations", json={"prompt": "a"}, headers=headers).status_code,
        guarded.get("/metrics", headers=headers).status_code,
    }

    assert statuses == {200}


@pytest.mark.parametrize("path", OPEN)
def test_health_and_docs_need_no_key(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_without_a_key_set_everything_is_open(client: TestClient) -> None:
    assert client.post("/score", json={"inputs": "a"}, headers={"Authorization": "Bearer any"}).status_code == 200


def test_the_refusal_has_the_shape_of_the_dialect(guarded: TestClient) -> None:
    wrong = {"Authorization": "Bearer wrong"}

    openai = guarded.post("/v1/images/generations", json={}, headers=wrong).json()["error"]
    score = guarded.post("/score", json={}, headers=wrong).json()["error"]
    root = guarded.post("/", json={}).json()["error"]

    assert (openai["type"], openai["code"], openai["param"]) == ("invalid_request_error", "invalid_api_key", None)
    assert openai["message"].startswith("Incorrect API key provided")
    assert score["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in root


def test_an_unread_body_does_not_keep_the_refusal_back(guarded: TestClient) -> None:
    assert guarded.post("/score", content=b"x" * 5_000_000).status_code == 401
