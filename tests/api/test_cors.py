"""Pages of other origins: none by default, the named ones with every answer, errors and streams too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from safelight.errors import NotReady, Overloaded
from tests.api.fake_dispatcher import FakeDispatcher

PAGE = "https://app.example.org"
URL = "/v1/images/generations"
ASKED = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}
"""What a browser asks before the openai client's request."""


def allowed(headers: Mapping[str, str]) -> str | None:
    return headers.get("access-control-allow-origin")


def test_by_default_no_page_may_call(client: TestClient) -> None:
    asked = client.options(URL, headers=ASKED)
    made = client.post(URL, json={"prompt": "a"}, headers={"origin": PAGE})

    assert (asked.status_code, made.status_code) == (405, 200)
    assert not [name for name in (*asked.headers, *made.headers) if name.startswith("access-control")]


@pytest.mark.parametrize("path", [URL, "/", "/score", "/openai/v1/images/edits", "/jobs/x", "/nope"])
def test_a_page_that_is_named_may_ask_without_the_key_whether_it_may_call(
    connect: Callable[..., TestClient], path: str
) -> None:
    response = connect(cors_origins=PAGE, api_key="k").options(path, headers=ASKED)

    assert response.status_code == 200
    assert allowed(response.headers) == PAGE
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == ASKED["access-control-request-headers"]
    assert "Origin" in response.headers["vary"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.org.evil.example", "http://app.example.org", "null"]
)
def test_another_page_may_not(connect: Callable[..., TestClient], origin: str) -> None:
    client = connect(cors_origins=PAGE)

    asked = client.options(URL, headers=ASKED | {"origin": origin})
    made = client.post(URL, json={"prompt": "a"}, headers={"origin": origin})

    assert (asked.status_code, allowed(asked.headers), allowed(made.headers)) == (400, None, None)
    assert "Origin" in made.headers["vary"]


ANSWERS: dict[str, tuple[int, Exception | None, dict[str, Any]]] = {
    "a picture": (200, None, {"json": {"prompt": "a"}}),
    "a stream": (200, None, {"json": {"prompt": "a", "stream": True}}),
    "a wrong value": (400, None, {"json": {"prompt": ""}}),
    "no key": (401, None, {"json": {"prompt": "a"}, "headers": {"authorization": "Bearer wrong"}}),
    "a long body": (413, None, {"content": b" " * 2_000_000}),
    "another type": (415, None, {"content": b"a", "headers": {"content-type": "text/plain"}}),
    "a full queue": (429, Overloaded("full", retry_after_s=3), {"json": {"prompt": "a"}}),
    "a model that loads": (503, NotReady("loading", retry_after_s=3), {"json": {"prompt": "a"}}),
    "what no one foresaw": (500, ZeroDivisionError("x"), {"json": {"prompt": "a"}}),
    "a job where there are none": (400, None, {"json": {"prompt": "a"}, "headers": {"idempotency-key": "k"}}),
}


@pytest.mark.parametrize(("status", "error", "sent"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_can_be_read_by_the_page(
    connect: Callable[..., TestClient],
    dispatcher: FakeDispatcher,
    status: int,
    error: Exception | None,
    sent: dict[str, Any],
) -> None:
    client = connect(cors_origins=(PAGE, "http://localhost:5173"), api_key="k")
    dispatcher.error = error
    headers = {"authorization": "Bearer k", "origin": PAGE, **sent.get("headers", {})}

    response = client.post(URL, **{**sent, "headers": headers})

    assert response.status_code == status
    assert allowed(response.headers) == PAGE
    assert response.headers["access-control-allow-credentials"] == "true"
    exposed = response.headers["access-control-expose-headers"].split(", ")
    ours = {name for name in response.headers if name.startswith(("x-safelight", "x-request", "retry", "location"))}
    assert ours <= set(exposed)
    assert {"x-safelight-warning", "x-request-id", "location", "retry-after"} <= set(exposed)


def test_all_pages_may_call_without_cookies(connect: Callable[..., TestClient]) -> None:
    client = connect(cors_origins="*")

    made = client.post(URL, json={"prompt": "a"}, headers={"origin": PAGE, "cookie": "a=b"})
    asked = client.options(URL, headers=ASKED)

    assert allowed(made.headers) == allowed(asked.headers) == "*"
    assert "access-control-allow-credentials" not in {*made.headers, *asked.headers}


def test_a_request_of_no_page_is_answered_as_ever(connect: Callable[..., TestClient]) -> None:
    response = connect(cors_origins=PAGE).post(URL, json={"prompt": "a"})

    assert response.status_code == 200
    assert allowed(response.headers) is None
