"""Where clients of the hub put a prompt, its parameters and options, and that each means the same."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.api.fake_dispatcher import FakeDispatcher
from tests.api.pictures import opened


def png() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(file, "PNG")
    return file.getvalue()


EVERY_PARAMETER: dict[str, Any] = {
    "guidance_scale": 3.0,
    "negative_prompt": "fog",
    "num_inference_steps": 7,
    "width": 128,
    "height": 96,
    "scheduler": "heun",
    "seed": 5,
    "true_cfg_scale": 2.0,
    "max_sequence_length": 64,
    "num_images_per_prompt": 1,
}


@pytest.mark.parametrize("path", ["/", "/predict", "/score"])
def test_every_parameter_works_at_the_top_level_as_in_parameters(
    client: TestClient, dispatcher: FakeDispatcher, path: str
) -> None:
    inner = client.post(path, json={"inputs": "a fox", "parameters": EVERY_PARAMETER})
    outer = client.post(path, json={"inputs": "a fox"} | EVERY_PARAMETER)

    assert outer.status_code == 200
    assert outer.content == inner.content
    assert outer.headers["x-safelight-parameters"] == inner.headers["x-safelight-parameters"]
    assert (dispatcher.requests[1].negative_prompt, dispatcher.requests[1].seed) == ("fog", 5)


def test_the_parameters_may_be_in_both_places_and_the_same_value_twice(
    client: TestClient, dispatcher: FakeDispatcher
) -> None:
    body = {"inputs": "a fox", "seed": 5.0, "width": 96, "height": None, "parameters": {"seed": 5, "height": 128}}
    response = client.post("/", json=body)

    assert opened(response.content).size == (96, 128)
    assert dispatcher.requests[0].seed == 5


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a fox"},
        {"prompt": ["a fox"]},
        {"inputs": ["a fox"]},
        {"inputs": {"prompt": ["a fox"]}},
        {"inputs": [{"prompt": "a fox"}]},
        {"parameters": {"prompt": "a fox"}},
        {"inputs": None, "prompt": "a fox"},
        {"inputs": "a fox", "prompt": "a fox"},
        {"inputs": "a fox", "parameters": {"prompt": ["a fox"]}},
    ],
)
def test_a_prompt_by_another_name_or_in_a_list_of_one_is_the_prompt(
    client: TestClient, dispatcher: FakeDispatcher, body: dict[str, Any]
) -> None:
    response = client.post("/", json=body | {"seed": 7})

    assert response.status_code == 200, response.text
    assert (dispatcher.requests[0].prompt, dispatcher.requests[0].seed) == ("a fox", 7)
    assert "x-safelight-warning" not in response.headers


@pytest.mark.parametrize(("query", "body"), [("seed=7", {"prompt": "a fox"}), ("seed=7&prompt=a+fox", {})])
def test_a_prompt_by_another_name_goes_with_parameters_in_the_url(
    client: TestClient, dispatcher: FakeDispatcher, query: str, body: dict[str, Any]
) -> None:
    assert client.post(f"/?{query}", json=body).status_code == 200
    assert (dispatcher.requests[0].prompt, dispatcher.requests[0].seed) == ("a fox", 7)


def test_a_negative_prompt_in_a_list_of_one_is_read(client: TestClient, dispatcher: FakeDispatcher) -> None:
    client.post("/", json={"inputs": "a fox", "negative_prompt": ["fog"], "guidance_scale": 3})

    assert dispatcher.requests[0].negative_prompt == "fog"


@pytest.mark.parametrize("place", ["top", "parameters", "list"])
def test_beside_an_image_the_prompt_says_what_to_make_of_it_wherever_it_stands(
    client: TestClient, dispatcher: FakeDispatcher, place: str
) -> None:
    image = base64.b64encode(png()).decode()
    body = {
        "top": {"inputs": image, "prompt": "in the snow", "strength": 0.5},
        "parameters": {"inputs": image, "parameters": {"prompt": "in the snow", "strength": 0.5}},
        "list": {"inputs": [image], "prompt": ["in the snow"], "parameters": {"strength": 0.5}},
    }[place]
    response = client.post("/", json=body)

    assert response.status_code == 200, response.text
    (request,) = dispatcher.requests
    assert (request.prompt, request.source is not None and request.source.strength) == ("in the snow", 0.5)


def test_the_hubs_options_are_taken_and_said_to_have_no_effect(client: TestClient) -> None:
    body = {"inputs": "a fox", "options": {"wait_for_model": True, "use_cache": False}}
    response = client.post("/", json=body)

    assert response.status_code == 200
    (warning,) = response.headers.get_list("x-safelight-warning")
    assert warning.startswith("options have no effect here: wait_for_model, use_cache;")


@pytest.mark.parametrize("options", [None, {}, {"use_cache": None}])
def test_options_that_say_nothing_are_not_warned_of(client: TestClient, options: Any) -> None:
    response = client.post("/", json={"inputs": "a fox", "options": options})

    assert response.status_code == 200
    assert "x-safelight-warning" not in response.headers


@pytest.mark.parametrize("depth", [10, 400, 900, 980, 20_000])
def test_nested_nonsense_in_two_places_is_refused(client: TestClient, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    body = f'{{"inputs": {{"prompt": "a", "loras": {nested}}}, "loras": {nested}, "prompt": {nested}}}'
    response = client.post("/", content=body)

    assert response.status_code == 400
    assert json.loads(response.content)["error"]


@pytest.mark.parametrize("seed", [-1, -1.0, None])
@pytest.mark.parametrize("route", ["/", "/v1/images/generations", "/v1/images/edits"])
def test_a_seed_of_minus_one_or_null_is_drawn_and_told(
    client: TestClient, dispatcher: FakeDispatcher, route: str, seed: float | None
) -> None:
    for _ in range(2):
        if route == "/v1/images/edits":
            fields = {"prompt": "a fox", "n": "2", "seed": json.dumps(seed)}
            response = client.post(route, data=fields, files={"image": png()})
        else:
            response = client.post(route, json={"prompt": "a fox", "seed": seed})
        assert response.status_code == 200, response.text
        told = response.headers["x-safelight-seed"]
        assert told == str(dispatcher.requests[-1].seed)
        if route != "/":
            assert [each["seed"] - int(told) for each in response.json()["data"]] in ([0], [0, 1])
    first, second = dispatcher.requests
    assert 0 <= first.seed != second.seed >= 0
