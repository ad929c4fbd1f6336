"""Whatever is sent, the answer is a picture or a 4xx in the dialect's shape: never a 5xx, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.testclient import TestClient

from safelight.api.huggingface.wire import Parameters
from safelight.api.openai.routes import ImageGenerationBody
from safelight.server.app import create_app
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher

APP = create_app(Settings(max_body_bytes=100_000), FakeDispatcher())  # type: ignore[arg-type]
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
SETTINGS = hypothesis.settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@SCHEMA.parametrize()
@hypothesis.settings(SETTINGS, max_examples=20)  # of each route and method, the same every time
def test_requests_drawn_from_the_document_are_answered_as_it_says(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(APP) as client:
        yield client


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=30)
    | st.sampled_from(["auto", "64x64", "1e9x1", "png", "jpeg", "euler", "b64_json", 64, 4, 0, -1, 10**30, 1e300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def bodies(fields: Any) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(sorted(fields)) | st.text(max_size=5), JSON, max_size=6)


HUGGING_FACE = st.fixed_dictionaries(
    {}, optional={"inputs": st.just("a fox") | bodies(["prompt", "seed"]) | JSON, "parameters": JSON}
) | st.builds(lambda parameters: {"inputs": "a fox", "parameters": parameters}, bodies(Parameters.model_fields))
OPENAI = st.builds(lambda body: {"prompt": "a fox", **body}, bodies(ImageGenerationBody.model_fields)) | JSON


def check(client: TestClient, path: str, content: bytes, headers: dict[str, Any] | None = None) -> None:
    response = client.post(path, content=content, headers=headers)

    assert response.status_code == 200 or 400 <= response.status_code < 500
    assert response.headers["x-request-id"]
    if response.status_code != 200:
        error = response.json()["error"]
        assert isinstance(error, str) if path in ("/", "/predict") else isinstance(error["message"], str)
        assert "Traceback" not in response.text
        assert len(response.content) < 20_000


@pytest.mark.parametrize("path", ["/", "/score"])
@SETTINGS
@hypothesis.given(body=HUGGING_FACE)
def test_any_json_to_hugging_faces_routes(client: TestClient, path: str, body: Any) -> None:
    check(client, path, json.dumps(body).encode())


@SETTINGS
@hypothesis.given(body=OPENAI)
def test_any_json_to_openais_route(client: TestClient, body: Any) -> None:
    check(client, "/v1/images/generations", json.dumps(body).encode())


@pytest.mark.parametrize("path", ["/predict", "/score", "/v1/images/generations"])
@SETTINGS
@hypothesis.given(content=st.binary(max_size=200))
def test_any_bytes(client: TestClient, path: str, content: bytes) -> None:
    check(client, path, content)


HEADER_VALUE = st.binary(max_size=40).map(
    lambda value: value.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
)


@pytest.mark.parametrize("path", ["/predict", "/v1/images/generations"])
@SETTINGS
@hypothesis.given(
    headers=st.dictionaries(
        st.sampled_from(["accept", "content-type", "content-length", "x-request-id", "x-ms-client-request-id"]),
        HEADER_VALUE | st.sampled_from([b"*/*", b"image/*;q=x", b"application/json", b"9" * 400]),
    )
)
def test_any_headers(client: TestClient, path: str, headers: dict[str, bytes]) -> None:
    check(client, path, b'{"inputs": "a fox", "prompt": "a fox"}', headers)


@SETTINGS
@hypothesis.given(query=st.dictionaries(st.sampled_from(sorted(Parameters.model_fields)) | st.text(), st.text()))
def test_any_parameters_in_the_url(client: TestClient, query: dict[str, str]) -> None:
    response = client.post("/predict", params=query, json={"inputs": "a fox"})

    assert response.status_code in (200, 400)


@SETTINGS
@hypothesis.given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]), path=st.text(max_size=30)
)
def test_any_path(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, "/" + quote(path, safe="", errors="replace"))

    assert response.status_code in (200, 400, 404, 405)
