"""One error, one status, worded in the dialect of the path."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from safelight import errors
from tests.api.fake_dispatcher import FakeDispatcher

CASES: list[tuple[Exception, int, str, str]] = [
    (errors.Overloaded("the queue is full", retry_after_s=3), 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.NotReady("loading", retry_after_s=2), 503, "server_error", "not_ready"),
    (errors.StorageUnavailable("full", retry_after_s=9), 503, "server_error", "storage_unavailable"),
    (errors.DeadlineExceeded("too old"), 408, "server_error", "timeout"),
    (errors.GenerationCancelled("shutting down"), 503, "server_error", "shutting_down"),
    (errors.ReplicaLost("the replica ended"), 503, "server_error", "replica_lost"),
    (errors.EngineFailure("out of memory"), 500, "server_error", "engine_failure"),
    (errors.NonFiniteValues("NaN at step 2"), 500, "server_error", "engine_failure"),
    (errors.ModelLoadError("no weights"), 503, "server_error", "model_not_loaded"),
]


@pytest.mark.parametrize(("error", "status", "type", "code"), CASES, ids=lambda each: type(each).__name__)
def test_an_error_of_the_model_has_its_status_and_its_words(
    client: TestClient, dispatcher: FakeDispatcher, error: errors.SafelightError, status: int, type: str, code: str
) -> None:
    dispatcher.error = error

    openai = client.post("/v1/images/generations", json={"prompt": "a"})
    score = client.post("/score", json={"inputs": "a"})
    root = client.post("/", json={"inputs": "a"})

    assert (openai.status_code, score.status_code, root.status_code) == (status, status, status)
    assert openai.json() == {"error": {"message": error.message, "type": type, "param": None, "code": code}}
    assert score.json() == {"error": {"code": code, "message": error.message}}
    assert root.json() == {"error": error.message}


@pytest.mark.parametrize(("error", "status", "_type", "_code"), CASES, ids=lambda each: type(each).__name__)
def test_retry_after_comes_only_with_429_and_503(
    client: TestClient, dispatcher: FakeDispatcher, error: errors.SafelightError, status: int, _type: str, _code: str
) -> None:
    dispatcher.error = error

    response = client.post("/", json={"inputs": "a"})

    retry_after = getattr(error, "retry_after_s", 1)
    assert response.headers.get("retry-after") == (
        str(retry_after) if status in (429, 503) and not isinstance(error, errors.ModelLoadError) else None
    )


@pytest.mark.parametrize("path", ["/", "/v1/images/generations"])
def test_what_no_one_foresaw_is_a_500_without_a_traceback(
    client: TestClient, dispatcher: FakeDispatcher, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher.error = ZeroDivisionError("a secret of ours")

    response = client.post(path, json={"inputs": "a"} if path == "/" else {"prompt": "a"})

    assert response.status_code == 500
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert response.headers["x-request-id"] in caplog.text
    assert "a secret of ours" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/images/generations", 405, "method_not_supported"),
        ("DELETE", "/v1/models", 405, "method_not_supported"),
        ("GET", "/openai/deployments/tiny/images/generations", 405, "method_not_supported"),
        ("POST", "/v1/images/upscales", 404, "unknown_url"),
        ("POST", "/v1/images/generations/", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/openai/x", 404, "unknown_url"),
    ],
)
def test_openais_paths_get_the_envelope_for_wrong_routes_and_methods(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)

    error = response.json()["error"]
    assert response.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert method in error["message"]
    assert path in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("PUT", "/", 405), ("GET", "/nope", 404), ("POST", "/x", 404)],
)
def test_other_paths_get_a_text(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)

    assert response.status_code == status
    assert isinstance(response.json()["error"], str)
    assert path in response.json()["error"]


def test_the_wrong_method_is_told_the_right_one(client: TestClient) -> None:
    response = client.get("/score")

    assert response.headers["allow"] == "POST"
    assert "use POST" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/%ff%fe", "/v1/%00", "/v1/models/%ed%a0%80", "/" + "x" * 5000, "/v1/" + "y" * 5000])
def test_strange_paths_are_not_found_like_any_other(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert len(response.content) < 1000


def test_a_wrong_method_is_told_every_method_that_works_there(client: TestClient) -> None:
    answer = client.put("/")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert "use GET, HEAD, POST" in answer.json()["error"]
