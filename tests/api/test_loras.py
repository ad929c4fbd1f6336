"""LoRAs named in requests: what reaches the engine, what the answer says, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from safelight.model.spec import LoraFile
from tests.api.fake_dispatcher import SPEC, FakeDispatcher

FILM = LoraFile(name="film", file="/secret/film.safetensors", scale=0.8, revision="sha256:1")
COMIC = LoraFile(name="comic", file="/secret/comic.safetensors", hub_id="org/comic")
Ask = Callable[[dict[str, Any]], Any]


@pytest.fixture
def dispatcher(dispatcher: FakeDispatcher) -> FakeDispatcher:
    dispatcher.spec = replace(SPEC, loras=(FILM, COMIC))
    return dispatcher


@pytest.fixture(params=["huggingface", "openai", "edit"])
def ask(request: pytest.FixtureRequest, client: TestClient) -> Ask:
    """Send LoRA fields in one of the dialects."""

    def ask(fields: dict[str, Any]) -> Any:
        if request.param == "huggingface":
            return client.post("/predict", json={"inputs": "a dog", "parameters": fields})
        if request.param == "openai":
            return client.post("/v1/images/generations", json={"prompt": "a dog", **fields})
        form = {"prompt": "a dog", **{name: json.dumps(value) for name, value in fields.items()}}
        return client.post("/v1/images/edits", data=form, files={"image": _png()})

    return ask


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"loras": [{"name": "film"}]}, [("film", 0.8)]),
        ({"loras": [{"name": "film", "scale": -2}, {"path": "org/comic"}]}, [("comic", 1.0), ("film", -2.0)]),
        ({"lora": {"path": "comic", "scale": 0.5}}, [("comic", 0.5)]),
        ({"loras": []}, []),
        ({}, []),
    ],
)
def test_loras_reach_the_engine_and_the_answer(
    ask: Ask, dispatcher: FakeDispatcher, fields: dict[str, Any], expected: list[tuple[str, float]]
) -> None:
    answer = ask(fields)

    assert answer.status_code == 200, answer.text
    assert [(each.name, each.scale) for each in dispatcher.requests[-1].loras] == expected
    in_force = json.loads(answer.headers["x-safelight-parameters"])
    assert in_force.get("loras", []) == [{"name": name, "scale": scale} for name, scale in expected]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"loras": [{"name": "flim"}]}, "no LoRA 'flim' here; there are: film, comic"),
        ({"loras": [{"path": "/secret/film.safetensors"}]}, "there are: film, comic"),
        ({"loras": [{"path": "org/other"}]}, "no LoRA 'org/other' here"),
        ({"loras": [{"name": "film", "scale": 4.5}]}, "must be between -4 and 4, not 4.5"),
        ({"loras": [{"name": "comic"}, {"path": "org/comic"}]}, "'comic' is named twice"),
        ({"loras": [{"scale": 1}]}, "a LoRA needs a name"),
        ({"loras": [{"name": "film", "path": "film"}]}, "not both"),
        ({"loras": [{"name": "film"}] * 9}, "at most 8"),
        ({"loras": [{"name": "film", "weight": 1}]}, "unknown parameter"),
        ({"loras": "film"}, "must be a list"),
    ],
)
def test_a_lora_that_cannot_be_had_is_refused_with_what_can(
    ask: Ask, dispatcher: FakeDispatcher, fields: dict[str, Any], expected: str
) -> None:
    answer = ask(fields)

    assert 400 <= answer.status_code < 500
    assert expected in answer.text.replace('\\"', '"')
    assert dispatcher.requests == []


def test_a_server_without_loras_says_so(ask: Ask, dispatcher: FakeDispatcher) -> None:
    dispatcher.spec = replace(dispatcher.spec, loras=())

    answer = ask({"lora": {"name": "film"}})

    assert 400 <= answer.status_code < 500
    assert "there are: none" in answer.text


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    return buffer.getvalue()
