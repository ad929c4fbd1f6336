"""How much one request may hold beside its images, and how briefly it is told what was too much."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.testclient import TestClient

from safelight.api.http.bodies.data_urls import PIECE_CHARACTERS, from_base64
from safelight.errors import InvalidRequest
from safelight.server.jobs.preferences import read_preferences
from tests.api.fake_dispatcher import FakeDispatcher
from tests.unit.picture.incoming.test_uploads import encoded, left_red

OPENAI, EDITS = "/v1/images/generations", "/v1/images/edits"
PICTURE = encoded(left_red())


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (OPENAI, {"loras": [{"name": "film"}] * 9}, "loras", "loras has 9 items; at most 8 are read"),
        (EDITS, {"images": [{"image_url": ""}] * 17}, "images", "images has 17 items; at most 16 are read"),
        (OPENAI, {"extra": {str(number): 1 for number in range(257)}}, None, "257 names; at most 256 are read"),
        (OPENAI, {"extra": [0] * 65_536}, None, "more than 65536 commas and opening brackets"),
    ],
)
def test_what_is_too_much_is_refused_with_the_limit(
    client: TestClient, dispatcher: FakeDispatcher, path: str, body: dict[str, Any], param: str | None, words: str
) -> None:
    error = error_of(client.post(path, json={"prompt": "a fox", **body}))

    assert (error["param"], dispatcher.requests) == (param, [])
    assert words in error["message"]


def test_prompts_of_nothing_but_commas_are_read(client: TestClient, dispatcher: FakeDispatcher) -> None:
    response = client.post(OPENAI, json={"prompt": "," * 32_000, "negative_prompt": "," * 32_000})

    assert response.status_code == 200
    assert dispatcher.requests[0].prompt == "," * 32_000


def test_of_many_unknown_names_the_first_are_described_and_the_others_counted(client: TestClient) -> None:
    error = error_of(client.post(OPENAI, json={"prompt": "a", **{f"x{number}" * 50: 1 for number in range(200)}}))

    assert error["message"].startswith("200 problems, of which the first 4 are: unknown parameter 'x0x0x0")
    assert error["message"].count("unknown parameter") == 4
    assert len(error["param"]) <= 257


@pytest.mark.parametrize("value", ["\u2028" * 150_000, "\x01" * 150_000, "x" * 1_000_000])
def test_of_a_long_text_that_is_no_number_the_beginning_is_repeated(client: TestClient, value: str) -> None:
    error = error_of(client.post(OPENAI, json={"prompt": "a", "n": value}))

    assert error["param"] == "n"
    assert error["message"].startswith("n must be an integer, not '")
    assert len(error["message"]) < 120


def test_the_texts_of_a_form_share_the_limit_of_a_body(client: TestClient, dispatcher: FakeDispatcher) -> None:
    fields = {"prompt": "a", "user": "x" * 600_000, "safety_identifier": "x" * 600_000}

    response = client.post(EDITS, data=fields, files={"image": PICTURE})

    assert (response.status_code, dispatcher.requests) == (413, [])
    assert "1048576 bytes" in error_of(response)["message"]


def test_a_url_has_no_more_parameters_than_a_body(client: TestClient) -> None:
    query = urlencode({f"x{number}": 1 for number in range(257)})

    response = client.post(f"/?{query}", json={"inputs": "a fox"})

    assert response.status_code == 400
    assert response.json()["error"] == "the URL has 257 parameters; at most 256 are read"


def test_more_preferences_than_anybody_has_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than 100 preferences"):
        read_preferences(["a," * 60, "a," * 60])


@pytest.mark.parametrize("num_bytes", [0, 1, 2, 3, PIECE_CHARACTERS * 3 // 4, PIECE_CHARACTERS + 1])
def test_base64_of_any_length_is_read(num_bytes: int) -> None:
    content = bytes(range(256)) * (num_bytes // 256 + 1)

    assert from_base64(base64.b64encode(content[:num_bytes]).decode(), field="inputs") == content[:num_bytes]


@pytest.mark.parametrize("text", ["A" * (PIECE_CHARACTERS - 2) + "==AAAA", "AA=A", "A", "=", "é"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="inputs is no base64"):
        from_base64(text, field="inputs")
