"""The Hugging Face dialect on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tests.api.fake_dispatcher import FakeDispatcher
from tests.api.pictures import MAGIC, from_base64, opened


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_without_a_preference_the_body_is_the_picture(client: TestClient, path: str) -> None:
    response = client.post(path, json={"inputs": "a fox"})

    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert opened(response.content).size == (64, 64)


def test_without_a_preference_score_answers_a_json_string_of_base64(client: TestClient) -> None:
    response = client.post("/score", json={"inputs": "a fox"})

    assert response.headers["content-type"] == "application/json"
    assert from_base64(response.json()).format == "PNG"


@pytest.mark.parametrize("path", ["/", "/predict", "/score"])
@pytest.mark.parametrize("media_type", MAGIC)
def test_accept_chooses_the_image_format_on_every_route(client: TestClient, path: str, media_type: str) -> None:
    response = client.post(path, json={"inputs": "a fox"}, headers={"Accept": media_type})

    assert response.headers["content-type"] == media_type
    assert response.content.startswith(MAGIC[media_type])


@pytest.mark.parametrize("path", ["/", "/predict", "/score"])
def test_accept_json_gets_a_string_of_base64_on_every_route(client: TestClient, path: str) -> None:
    response = client.post(path, json={"inputs": "a fox"}, headers={"Accept": "application/json"})

    assert from_base64(response.json()).size == (64, 64)


def test_image_jpg_is_taken_as_jpeg(client: TestClient) -> None:
    response = client.post("/", json={"inputs": "a fox"}, headers={"Accept": "image/jpg"})

    assert response.headers["content-type"] == "image/jpeg"
    assert opened(response.content).format == "JPEG"


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_a_format_that_cannot_be_made_is_refused_with_those_that_can(client: TestClient, path: str) -> None:
    response = client.post(path, json={"inputs": "a fox"}, headers={"Accept": "image/avif"})

    assert response.status_code == 406
    assert "image/png, image/jpeg, image/webp, application/json" in response.json()["error"]


def test_all_seven_parameters_of_the_card_reach_the_model(client: TestClient, dispatcher: FakeDispatcher) -> None:
    parameters = {
        "guidance_scale": 3.0,
        "negative_prompt": "fog",
        "num_inference_steps": 7,
        "width": 128,
        "height": 96,
        "scheduler": "heun",
        "seed": 0,
    }
    response = client.post("/", json={"inputs": "a fox", "parameters": parameters})

    request = dispatcher.requests[0]
    assert opened(response.content).size == (128, 96)
    assert (request.prompt, request.negative_prompt, request.true_cfg_scale) == ("a fox", "fog", 3.0)
    assert (request.num_inference_steps, request.seed) == (7, 0)
    assert request.scheduler == "FlowMatchHeunDiscreteScheduler"


def test_width_alone_is_enough(client: TestClient) -> None:
    response = client.post("/", json={"inputs": "a fox", "parameters": {"width": 128}})

    assert opened(response.content).size == (128, 64)


@pytest.mark.parametrize("parameters", [None, {}, {"seed": None, "negative_prompt": None}])
def test_null_means_not_given(client: TestClient, parameters: Any) -> None:
    assert client.post("/", json={"inputs": "a fox", "parameters": parameters}).status_code == 200


def test_an_integer_may_be_written_with_a_zero_fraction(client: TestClient, dispatcher: FakeDispatcher) -> None:
    client.post("/", content='{"inputs": "a fox", "parameters": {"seed": 7.0}}')

    assert dispatcher.requests[0].seed == 7


def test_the_headers_say_how_to_make_the_picture_again(client: TestClient) -> None:
    first = client.post("/", json={"inputs": "a fox", "parameters": {"width": 96}})

    parameters = json.loads(first.headers["x-safelight-parameters"])
    second = client.post("/", json={"inputs": "a fox", "parameters": parameters})
    assert first.headers["x-safelight-seed"] == str(parameters["seed"])
    assert second.content == first.content


def test_every_warning_is_a_header_of_its_own(client: TestClient, dispatcher: FakeDispatcher) -> None:
    dispatcher.warnings = ("prompt was cut after 64 tokens",)

    response = client.post("/", json={"inputs": "a fox", "parameters": {"guidance_scale": 9, "strength": 0.5}})

    warnings = response.headers.get_list("x-safelight-warning")
    assert [warning.split(" has ")[0] for warning in warnings] == [
        "strength",
        "guidance_scale",
        "prompt was cut after 64 tokens",
    ]


def test_a_warning_with_line_breaks_and_any_script_cannot_break_the_headers(
    client: TestClient, dispatcher: FakeDispatcher
) -> None:
    dispatcher.warnings = ("the token '狐'\r\nset-cookie: a=b was cut \x00" + "x" * 1000,)

    response = client.post("/", json={"inputs": "a fox"})

    warning = response.headers["x-safelight-warning"]
    assert warning.startswith(r"the token '\u72d0' set-cookie: a=b was cut xxx")
    assert len(warning) == 400
    assert "set-cookie" not in response.headers


def test_inputs_may_be_an_object_with_a_prompt_and_parameters(client: TestClient, dispatcher: FakeDispatcher) -> None:
    response = client.post("/", json={"inputs": {"prompt": "a fox", "seed": 3}, "parameters": {"width": 96}})

    assert opened(response.content).size == (96, 64)
    assert (dispatcher.requests[0].prompt, dispatcher.requests[0].seed) == ("a fox", 3)


def test_target_size_stands_for_width_and_height(client: TestClient) -> None:
    body = {"inputs": "a fox", "parameters": {"target_size": {"width": 96, "height": 128}}}

    assert opened(client.post("/", json=body).content).size == (96, 128)


def test_parameters_in_the_url_stand_in_for_a_body_without_any(client: TestClient, dispatcher: FakeDispatcher) -> None:
    client.post("/?seed=5&width=96&guidance_scale=1.5&negative_prompt=7", json={"inputs": "a fox", "parameters": {}})

    request = dispatcher.requests[0]
    assert (request.seed, request.width, request.negative_prompt) == (5, 96, "7")


def test_a_shorter_max_sequence_length_is_said_to_have_no_effect(client: TestClient) -> None:
    response = client.post("/", json={"inputs": "a fox", "parameters": {"max_sequence_length": 32}})

    assert response.headers["x-safelight-warning"] == "max_sequence_length has no effect: tiny always reads 64"


REFUSED: dict[str, tuple[Any, str]] = {
    "no inputs": ({}, "inputs is missing"),
    "another name for inputs": ({"text": "a fox"}, "unknown parameter 'text' (here it is 'prompt'); accepted are: in"),
    "two prompts": ({"prompt": "a", "parameters": {"prompt": "b"}}, "'prompt' is given twice, with different values"),
    "a prompt beside another": ({"inputs": "a fox", "prompt": "a dog"}, "beside a prompt it is an image"),
    "an object for a prompt": ({"prompt": {"prompt": "a"}}, "prompt must be a string, not an object"),
    "inputs of another type": ({"inputs": 7}, "inputs must be a string, not 7"),
    "an empty prompt": ({"inputs": " "}, "inputs: prompt is empty"),
    "an object without a prompt": ({"inputs": {"text": "a fox"}}, "inputs is an object without a prompt"),
    "a prompt of too many characters": ({"inputs": "a fox " * 5334}, "at most 32000"),
    "a list of prompts": ({"inputs": ["a", "b"]}, "inputs is a list of 2; a request makes one picture of one prompt"),
    "a list of no prompt": ({"inputs": []}, "inputs is a list of 0"),
    "a list of a list": ({"inputs": [["a"]]}, "inputs must be a string, not a list"),
    "prompts by their own name": ({"prompt": ["a", "b", "c"]}, "prompt is a list of 3"),
    "prompts in an object": ({"inputs": {"prompt": ["a", "b"]}}, "prompt is a list of 2"),
    "negative prompts": ({"inputs": "a", "parameters": {"negative_prompt": ["b", "c"]}}, "negative_prompt is a list"),
    "parameters of another type": ({"inputs": "a", "parameters": []}, "parameters must be an object, not a list"),
    "an unknown parameter": ({"inputs": "a", "parameters": {"sede": 1}}, "did you mean 'seed'"),
    "the accepted parameters": ({"inputs": "a", "parameters": {"x": 1}}, "guidance_scale, negative_prompt, num_"),
    "a number as text": ({"inputs": "a", "parameters": {"seed": "1"}}, "parameters.seed must be an integer, not '1'"),
    "true for a number": ({"inputs": "a", "parameters": {"width": True}}, "parameters.width must be an integer"),
    "a fraction of a step": ({"inputs": "a", "parameters": {"num_inference_steps": 1.5}}, "must be an integer"),
    "text for guidance": ({"inputs": "a", "parameters": {"guidance_scale": "high"}}, "must be a number"),
    "a list for a text": ({"inputs": "a", "parameters": {"scheduler": ["heun"]}}, "must be a string"),
    "a parameter at the top of another type": ({"inputs": "a", "seed": "1"}, "seed must be an integer, not '1'"),
    "an unknown parameter at the top": ({"inputs": "a", "sede": 1}, "unknown parameter 'sede' (did you mean 'seed'?)"),
    "an unknown option": ({"inputs": "a", "options": {"cache": True}}, "unknown parameter 'options.cache'"),
    "an option of another type": ({"inputs": "a", "options": {"use_cache": "no"}}, "must be true or false, not 'no'"),
    "options of another type": ({"inputs": "a", "options": []}, "options must be an object, not a list"),
    "a negative width": ({"inputs": "a", "parameters": {"width": -64}}, "the nearest is 32"),
    "a width between the steps": ({"inputs": "a", "parameters": {"width": 100}}, "the nearest is 96"),
    "a huge height": ({"inputs": "a", "parameters": {"height": 10**300}}, "the nearest is 256"),
    "no steps": ({"inputs": "a", "parameters": {"num_inference_steps": 0}}, "between 1 and 50"),
    "a negative seed": ({"inputs": "a", "parameters": {"seed": -2}}, "not -2; -1, null or no seed draws one"),
    "an unknown scheduler": ({"inputs": "a", "parameters": {"scheduler": "DDIM"}}, "FlowMatchHeunDiscreteScheduler"),
    "a huge scheduler name": ({"inputs": "a", "parameters": {"scheduler": "x" * 9999}}, "(euler)"),
    "several images": ({"inputs": "a", "parameters": {"num_images_per_prompt": 2}}, "/v1/images/generations takes n"),
    "more text than is read": ({"inputs": "a", "parameters": {"max_sequence_length": 512}}, "between 1 and 64"),
    "two sizes": (
        {"inputs": "a", "parameters": {"width": 64, "target_size": {"width": 96, "height": 96}}},
        "target_size contradicts",
    ),
    "half a size": ({"inputs": "a", "parameters": {"target_size": {"width": 96}}}, "target_size.height is missing"),
    "a parameter twice": ({"inputs": {"prompt": "a", "seed": 1}, "parameters": {"seed": 2}}, "'seed' is given twice"),
    "at the top and in parameters": ({"inputs": "a", "seed": 1, "parameters": {"seed": 2}}, "'seed' is given twice"),
    "at the top and in inputs": ({"inputs": {"prompt": "a", "seed": 1}, "seed": 2}, "'seed' is given twice"),
    "an object twice": (
        {
            "inputs": "a",
            "target_size": {"width": 64, "height": 64},
            "parameters": {"target_size": {"width": 96, "height": 64}},
        },
        "'target_size' is given twice",
    ),
}


@pytest.mark.parametrize("path", ["/", "/predict"])
@pytest.mark.parametrize(("body", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_made_is_refused_in_one_text(client: TestClient, path: str, body: Any, remedy: str) -> None:
    response = client.post(path, json=body)

    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    assert remedy in response.json()["error"]


@pytest.mark.parametrize(("body", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_made_is_refused_with_code_and_message_on_score(
    client: TestClient, body: Any, remedy: str
) -> None:
    response = client.post("/score", json=body)

    assert response.status_code == 400
    assert set(response.json()["error"]) == {"code", "message"}
    assert remedy in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("query", "remedy"),
    [
        ("seed=x", "parameters.seed must be an integer"),
        ("seed=1&seed=2", "more than once"),
        ("seed=" + "9" * 5000, "parameters.seed must be an integer"),
        ("api-version=1", "unknown parameter 'parameters.api-version'"),
        ("scheduler=7", "scheduler '7' is not compatible"),
    ],
)
def test_parameters_in_the_url_are_checked_as_those_in_the_body(client: TestClient, query: str, remedy: str) -> None:
    response = client.post(f"/?{query}", json={"inputs": "a fox"})

    assert response.status_code == 400
    assert remedy in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": "a fox", "parameters": {"seed": 2}},
        {"inputs": {"prompt": "a fox", "seed": 2}},
        {"inputs": "a fox", "width": 64},
    ],
)
def test_parameters_in_both_places_are_refused(client: TestClient, body: Any) -> None:
    response = client.post("/?seed=1", json=body)

    assert response.status_code == 400
    assert "in the URL and in the body" in response.json()["error"]


def test_two_requests_of_one_id_are_two_generations(
    connect: Callable[..., TestClient], dispatcher: FakeDispatcher
) -> None:
    client = connect()

    responses: list[httpx.Response] = [
        client.post("/", json={"inputs": "a fox"}, headers={"x-request-id": "same"}) for _ in range(2)
    ]

    assert [response.headers["x-request-id"] for response in responses] == ["same", "same"]
    assert len({request.id for request in dispatcher.requests}) == 2


@pytest.mark.parametrize("path", ["/", "/predict", "/score"])
@pytest.mark.parametrize("space", [b"", b" \r\n\t", b"\xef\xbb\xbf\r\n"])
def test_octets_that_begin_as_json_does_are_json(
    client: TestClient, dispatcher: FakeDispatcher, path: str, space: bytes
) -> None:
    content = space + b'{"inputs": "a fox"}'

    response = client.post(path, content=content, headers={"content-type": "Application/Octet-Stream; x=y"})

    assert response.status_code == 200
    assert dispatcher.requests[0].prompt == "a fox"


@pytest.mark.parametrize(
    ("media_type", "content", "status"),
    [
        ("application/octet-stream", b'["inputs"]', 415),
        ("application/octet-stream", b"a fox", 415),
        ("application/octet-stream", b'{"inputs": ', 400),
        ("text/plain", b'{"inputs": "a fox"}', 415),
    ],
)
def test_other_octets_and_other_types_are_not_taken_for_json(
    client: TestClient, media_type: str, content: bytes, status: int
) -> None:
    assert client.post("/", content=content, headers={"content-type": media_type}).status_code == status
