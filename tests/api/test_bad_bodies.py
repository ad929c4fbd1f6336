"""Bodies that are no requests: always a 4xx in the dialect's shape, never a 5xx, and nothing reaches the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher

PATHS = ["/", "/predict", "/score", "/v1/images/generations", "/openai/deployments/tiny/images/generations"]

BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the body is empty"),
    "blanks": (b" \n", "the body is empty"),
    "text": (b"a fox", "the body is not JSON"),
    "half an object": (b'{"inputs": "a', "the body is not JSON"),
    "two objects": (b"{}{}", "the body is not JSON"),
    "a list": (b'["a fox"]', "must be a JSON object"),
    "a number": (b"7", "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "not a number": (b'{"inputs": "a", "prompt": "a", "seed": NaN}', "NaN is not a number"),
    "infinity": (b'{"inputs": "a", "prompt": "a", "seed": -Infinity}', "-Infinity is not a number"),
    "latin-1": ('{"inputs": "schön"}'.encode("latin-1"), "the body is not UTF-8"),
    "utf-16": ('{"inputs": "a"}'.encode("utf-16"), "the body is not UTF-8"),
    "half a surrogate pair": (b'{"inputs": "\\ud800", "prompt": "\\ud800"}', "half of a surrogate pair"),
    "half a surrogate pair in a name": (b'{"\\udfff": 1}', "half of a surrogate pair"),
    "a name twice": (b'{"inputs": "a", "inputs": "b"}', "'inputs' is given more than once"),
    "lists in lists": (b"[" * 60_000, "nested too deeply"),
    "objects in objects": (b'{"a":' * 60_000 + b"1" + b"}" * 60_000, "nested too deeply"),
    "an integer of thousands of digits": (b'{"seed": ' + b"9" * 5000 + b"}", "integer of thousands of digits"),
    "a zero byte": (b"\x00", "the body is not JSON"),
}


def message_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("content", "remedy"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_json_object_is_refused(
    client: TestClient, dispatcher: FakeDispatcher, path: str, content: bytes, remedy: str
) -> None:
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})

    assert response.status_code == 400
    assert remedy in message_of(response)
    assert dispatcher.requests == []


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e308", "123456789" * 400])
@pytest.mark.parametrize(
    "name", ["seed", "width", "height", "num_inference_steps", "guidance_scale", "true_cfg_scale", "n"]
)
def test_huge_numbers_are_refused_by_name(client: TestClient, name: str, number: str) -> None:
    response = client.post(
        "/v1/images/generations",
        content=f'{{"prompt": "a", "{name}": {number}}}',
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 400
    assert response.json()["error"]["param"] == name
    assert len(response.content) < 4000


@pytest.mark.parametrize("content_type", ["application/json;charset=utf-8", "application/json ; Charset=UTF-8", None])
def test_the_content_type_may_have_a_charset_or_be_missing(client: TestClient, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}

    assert client.post("/", content=b'{"inputs": "a fox"}', headers=headers).status_code == 200


def test_a_byte_order_mark_is_read_over(client: TestClient) -> None:
    assert client.post("/", content=b'\xef\xbb\xbf{"inputs": "a fox"}').status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "image/png", "text/plain", "nonsense"])
def test_another_content_type_is_refused_with_the_right_one(client: TestClient, path: str, content_type: str) -> None:
    response = client.post(path, content=b'{"inputs": "a"}', headers={"Content-Type": content_type})

    assert response.status_code == 415
    assert "send JSON as application/json" in message_of(response)


@pytest.mark.parametrize("path", PATHS)
def test_a_prompt_of_ten_megabytes_is_refused_with_the_limit(client: TestClient, path: str) -> None:
    response = client.post(path, json={"inputs": "a fox " * 2_000_000})

    assert response.status_code == 413
    assert "1048576 bytes" in message_of(response)


def test_the_limit_holds_without_a_content_length(connect: Callable[..., TestClient]) -> None:
    client = connect(max_body_bytes=1024)

    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 512] * 3

    assert client.post("/score", content=chunks()).status_code == 413


@pytest.fixture
def app(dispatcher: FakeDispatcher) -> FastAPI:
    return create_app(Settings(), dispatcher)  # type: ignore[arg-type]


async def call(app: FastAPI, receive: Callable[[], Any], headers: list[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    """One POST to /score, byte for byte what an ASGI server passes on."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/score",
        "raw_path": b"/score",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
    }
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_a_body_without_end_is_read_no_further_than_the_limit(app: FastAPI) -> None:
    num_chunks = 0

    async def receive() -> dict[str, Any]:
        nonlocal num_chunks
        num_chunks += 1
        return {"type": "http.request", "body": b"x" * 65536, "more_body": True}

    sent = asyncio.run(call(app, receive, []))

    assert sent[0]["status"] == 413
    assert num_chunks * 65536 <= 1_048_576 + 65536


def test_a_body_declared_as_huge_is_refused_before_it_is_read(app: FastAPI) -> None:
    async def receive() -> dict[str, Any]:
        pytest.fail("the body was read")

    for length in (b"52428801", b"9" * 5000):
        assert asyncio.run(call(app, receive, [(b"content-length", length)]))[0]["status"] == 413


def test_a_client_that_leaves_while_it_sends_is_no_error_of_the_server(app: FastAPI) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert asyncio.run(call(app, receive, []))[0]["status"] == 499


def test_a_body_that_does_not_come_gets_408(dispatcher: FakeDispatcher) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    app = create_app(Settings(request_timeout_s=0.05), dispatcher)  # type: ignore[arg-type]

    assert asyncio.run(call(app, receive, []))[0]["status"] == 408
