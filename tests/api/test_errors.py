"""One error, one status, worded in the dialect of the path."""

from __future__ import annotations

import httpx2
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


WRONG_ADDRESSES = [
    ("/images/generations", "/v1/images/generations"),
    ("/v1/v1/images/generations", "/v1/images/generations"),
    ("//v1/images/generations", "/v1/images/generations"),
    ("/v1//images//generations", "/v1/images/generations"),
    ("/v1/images/generations/", "/v1/images/generations"),
    ("/images/edits///", "/v1/images/edits"),
    ("/openai/images/variations", "/openai/v1/images/variations"),
    ("/v1/openai/v1/images/edits", "/openai/v1/images/edits"),
    ("/openai/v1//models/tiny/", "/openai/v1/models/tiny"),
    ("//models/", "/v1/models"),
    ("/v1/v1/models/tiny", "/v1/models/tiny"),
    ("/openai/deployments/tiny/v1/images/generations", "/openai/deployments/tiny/images/generations"),
    ("/v1/openai/deployments/tiny/images/edits/", "/openai/deployments/tiny/images/edits"),
    ("//endpoints/blue/images/generations", "/endpoints/blue/v1/images/generations"),
]


@pytest.mark.parametrize(("path", "address"), WRONG_ADDRESSES)
def test_a_forgotten_or_doubled_part_of_openais_paths_gets_the_envelope_with_the_right_address(
    client: TestClient, path: str, address: str
) -> None:
    response = client.send(_raw(client, "POST", path))

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"
    assert response.json()["error"]["message"] == f"Invalid URL (POST {path}); use {address}"


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/v1/models/", "/v1/models"),
        ("/v1/models//", "/v1/models"),
        ("/v1//models/tiny", "/v1/models/tiny"),
        ("/v1/models/tiny/", "/v1/models/tiny"),
        ("/v1/models//tiny", "/v1/models/tiny"),
        ("/v1/models/org//name/", "/v1/models/org/name"),
        ("/openai/models/", "/openai/v1/models"),
        ("/openai/v1/models/tiny/", "/openai/v1/models/tiny"),
    ],
)
def test_a_slash_too_many_at_the_models_is_told_the_right_address_and_no_model(
    client: TestClient, path: str, address: str
) -> None:
    response = client.send(_raw(client, "GET", path))

    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")
    assert response.json()["error"]["message"] == f"Invalid URL (GET {path}); use {address}"


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/score/", "/score"),
        ("//score", "/score"),
        ("/predict//", "/predict"),
        ("//endpoints/a//score", "/endpoints/a/score"),
    ],
)
def test_a_slash_too_many_on_the_other_paths_is_told_the_right_address_too(
    client: TestClient, path: str, address: str
) -> None:
    response = client.send(_raw(client, "POST", path))

    assert response.status_code == 404
    assert f"use {address}" in response.text


@pytest.mark.parametrize("path", ["/v1/" + "y" * 5000, "/x" * 200, "/v1/v1/models/" + "z" * 5000])
def test_a_path_that_is_cut_in_a_message_has_a_mark(client: TestClient, path: str) -> None:
    not_there = client.post(path)
    not_so = client.put("/v1/models/" + "z" * 5000)

    assert f"{path[:128]}…" in _message(not_there)
    assert f"{'/v1/models/' + 'z' * 117}…" in _message(not_so)


def test_an_address_behind_ten_thousand_endpoints_is_none(client: TestClient) -> None:
    response = client.send(_raw(client, "POST", "/" + "/endpoints/a" * 2000 + "/v1/images/edits"))

    assert response.status_code == 404
    assert "docs lists the routes" in response.text


def _raw(client: TestClient, method: str, path: str) -> httpx2.Request:
    """A request whose path no client tidies up."""
    return httpx2.Request(method, "http://testserver" + path)


def _message(response: httpx2.Response) -> str:
    error = response.json()["error"]
    return str(error["message"] if isinstance(error, dict) else error)


def test_head_works_wherever_get_does_and_has_no_body(client: TestClient) -> None:
    routes = [each for each in client.get("/openapi.json").json()["paths"].items() if "get" in each[1]]
    paths = [path.replace("{id}", "tiny").replace("{name}", "x.png") for path, _ in routes]

    for path in [*paths, "/openapi.json", "/docs", "/v1/models/nope"]:
        got, asked = client.get(path), client.head(path)
        assert (path, asked.status_code, asked.content) == (path, got.status_code, b"")
        assert asked.headers.get("content-type") == got.headers.get("content-type")
    assert len(paths) > 6


def test_head_is_not_possible_where_get_is_not(client: TestClient) -> None:
    response = client.head("/v1/images/generations")

    assert (response.status_code, response.headers["allow"]) == (405, "POST")
