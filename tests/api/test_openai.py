"""The OpenAI dialect on the wire."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.api.fake_dispatcher import FakeDispatcher
from tests.api.pictures import from_base64

URL = "/v1/images/generations"


def test_a_prompt_alone_gets_one_png(client: TestClient) -> None:
    before = int(time.time())

    answer = client.post(URL, json={"prompt": "a fox"}).json()

    picture = from_base64(answer["data"][0]["b64_json"])
    assert len(answer["data"]) == 1
    assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert before <= answer["created"] <= time.time()
    assert {name: answer[name] for name in ("background", "output_format", "quality", "size")} == {
        "background": "opaque",
        "output_format": "png",
        "quality": "medium",
        "size": "64x64",
    }


def test_usage_counts_the_prompts_tokens_and_the_patches_of_every_picture(client: TestClient) -> None:
    usage = client.post(URL, json={"prompt": "a fox", "n": 2, "size": "128x64"}).json()["usage"]

    assert usage == {
        "input_tokens": 5,
        "output_tokens": 2 * 8 * 4,
        "total_tokens": 69,
        "input_tokens_details": {"text_tokens": 5, "image_tokens": 0},
        "output_tokens_details": {"image_tokens": 64, "text_tokens": 0},
    }


def test_picture_i_of_n_is_the_one_made_alone_with_its_seed(client: TestClient) -> None:
    together = client.post(URL, json={"prompt": "a fox", "n": 3, "seed": 40}).json()["data"]

    alone = [client.post(URL, json={"prompt": "a fox", "seed": each["seed"]}).json()["data"][0] for each in together]
    assert [each["seed"] for each in together] == [40, 41, 42]
    assert alone == together


def test_the_extensions_are_taken_at_the_top_level(client: TestClient, dispatcher: FakeDispatcher) -> None:
    body = {
        "prompt": "a fox",
        "seed": 9,
        "num_inference_steps": 2,
        "guidance_scale": 2.5,
        "negative_prompt": "fog",
        "scheduler": "lcm",
        "width": 96,
        "height": 128,
    }
    answer = client.post(URL, json=body).json()

    assert from_base64(answer["data"][0]["b64_json"]).size == (96, 128)
    assert dispatcher.requests[0].negative_prompt == "fog"
    assert answer["parameters"] == {
        "model": "tiny",
        "width": 96,
        "height": 128,
        "num_inference_steps": 2,
        "scheduler": "FlowMatchLCMScheduler",
        "guidance_scale": 2.5,
        "true_cfg_scale": 2.5,
        "seed": 9,
        "negative_prompt": "fog",
    }


@pytest.mark.parametrize(("output_format", "format"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_output_format_is_what_the_bytes_are(client: TestClient, output_format: str, format: str) -> None:
    answer = client.post(URL, json={"prompt": "a fox", "output_format": output_format}).json()

    assert answer["output_format"] == output_format
    assert from_base64(answer["data"][0]["b64_json"]).format == format


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_output_compression_is_the_quality(client: TestClient, output_format: str) -> None:
    sizes = [
        len(client.post(URL, json=body | {"output_compression": quality}).json()["data"][0]["b64_json"])
        for body in ({"prompt": "a fox", "seed": 1, "output_format": output_format},)
        for quality in (0, 50, 100)
    ]

    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(("size", "made"), [("auto", (64, 64)), ("128x96", (128, 96)), (None, (64, 64))])
def test_size_is_auto_or_any_width_and_height(client: TestClient, size: str | None, made: tuple[int, int]) -> None:
    answer = client.post(URL, json={"prompt": "a fox", "size": size}).json()

    assert from_base64(answer["data"][0]["b64_json"]).size == made
    assert answer["size"] == f"{made[0]}x{made[1]}"


def test_null_means_not_given(client: TestClient) -> None:
    names = ("model", "n", "size", "quality", "style", "background", "moderation", "stream", "partial_images", "seed")

    assert client.post(URL, json={"prompt": "a fox"} | dict.fromkeys(names)).status_code == 200


def test_what_asks_for_nothing_special_brings_no_warning(client: TestClient) -> None:
    body = {"prompt": "a fox", "quality": "auto", "background": "opaque", "output_compression": 100, "stream": False}

    answer = client.post(URL, json=body)

    assert answer.json()["warnings"] == []
    assert "x-safelight-warning" not in answer.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("style", "vivid"),
        ("moderation", "low"),
        ("complexity", "high"),
        ("user", "me"),
        ("safety_identifier", "me"),
        ("output_compression", 50),
        ("guidance_scale", 4),
    ],
)
def test_what_has_no_effect_is_said_in_the_answer_and_its_headers(client: TestClient, name: str, value: Any) -> None:
    response = client.post(URL, json={"prompt": "a fox", name: value})

    assert len(response.json()["warnings"]) == 1
    assert name in response.json()["warnings"][0]
    assert response.headers["x-safelight-warning"] == response.json()["warnings"][0]


REFUSED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no prompt": ({}, "missing_required_parameter", "prompt", "prompt is missing"),
    "an empty prompt": ({"prompt": ""}, "invalid_value", "prompt", "prompt is empty"),
    "a prompt of another type": ({"prompt": ["a"]}, "invalid_type", "prompt", "must be a string"),
    "an unknown field": ({"prompt": "a", "sized": 1}, "unknown_parameter", "sized", "did you mean 'size'"),
    "no pictures": ({"prompt": "a", "n": 0}, "invalid_value", "n", "between 1 and 10"),
    "eleven pictures": ({"prompt": "a", "n": 11}, "invalid_value", "n", "between 1 and 10"),
    "n of another type": ({"prompt": "a", "n": "2"}, "invalid_type", "n", "must be an integer"),
    "a size in words": ({"prompt": "a", "size": "big"}, "invalid_value", "size", "such as '64x64'"),
    "a size too large": ({"prompt": "a", "size": "1024x64"}, "invalid_value", "size", "the nearest is 256"),
    "a size between the steps": ({"prompt": "a", "size": "100x64"}, "invalid_value", "size", "the nearest is 96"),
    "a negative size": ({"prompt": "a", "size": "-64x64"}, "invalid_value", "size", "WIDTHxHEIGHT"),
    "a size of other digits": ({"prompt": "a", "size": "٦٤x٦٤"}, "invalid_value", "size", "WIDTHxHEIGHT"),
    "two sizes": ({"prompt": "a", "size": "64x64", "width": 96}, "invalid_value", "size", "contradicts"),
    "an impossible width": ({"prompt": "a", "width": 100}, "invalid_value", "width", "the nearest is 96"),
    "an unknown quality": ({"prompt": "a", "quality": "best"}, "invalid_value", "quality", "'hd', 'low'"),
    "gif": ({"prompt": "a", "output_format": "gif"}, "invalid_value", "output_format", "'png', 'jpeg' or 'webp'"),
    "too much quality": ({"prompt": "a", "output_compression": 101}, "invalid_value", "output_compression", "100"),
    "too many previews": ({"prompt": "a", "partial_images": 4}, "invalid_value", "partial_images", "between 0 and 3"),
    "transparency": ({"prompt": "a", "background": "transparent"}, "invalid_value", "background", "'opaque'"),
    "an unknown scheduler": ({"prompt": "a", "scheduler": "x"}, "invalid_value", "scheduler", "(euler)"),
    "a negative seed": ({"prompt": "a", "seed": -2}, "invalid_value", "seed", "not -2; -1, null or no seed draws one"),
}


@pytest.mark.parametrize(("body", "code", "param", "remedy"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_made_is_refused_in_the_envelope(
    client: TestClient, body: dict[str, Any], code: str, param: str, remedy: str
) -> None:
    response = client.post(URL, json=body)

    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert remedy in error["message"]


def test_json_is_all_that_is_answered(client: TestClient) -> None:
    response = client.post(URL, json={"prompt": "a fox"}, headers={"Accept": "image/png"})

    assert response.status_code == 406
    assert response.json()["error"]["code"] == "not_acceptable"


@pytest.mark.parametrize("model", ["org/Some_FLUX.1", "org-some-flux.1", "tiny", None, ""])
def test_the_model_answers_to_its_name_its_hub_id_and_to_none(
    connect: Callable[..., TestClient], model: str | None
) -> None:
    client = connect(model="org/Some_FLUX.1")

    assert client.post(URL, json={"prompt": "a fox", "model": model}).status_code == 200


def test_another_model_is_not_found(client: TestClient) -> None:
    response = client.post(URL, json={"prompt": "a fox", "model": "dall-e-3"})

    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "The model `dall-e-3` does not exist here; this server has: tiny",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_models_lists_the_one_that_is_served_under_its_hub_id(connect: Callable[..., TestClient]) -> None:
    answer = connect(model="org/Some_FLUX.1").get("/v1/models").json()

    assert answer["object"] == "list"
    assert [(each["id"], each["object"], each["owned_by"]) for each in answer["data"]] == [
        ("org/Some_FLUX.1", "model", "org")
    ]


@pytest.mark.parametrize("id", ["org/Some_FLUX.1", "org%2FSome_FLUX.1", "tiny"])
def test_a_model_is_found_by_an_id_with_a_slash(connect: Callable[..., TestClient], id: str) -> None:
    assert connect(model="org/Some_FLUX.1").get(f"/v1/models/{id}").json()["id"] == "org/Some_FLUX.1"


@pytest.mark.parametrize("id", ["nope", "a/b/c"])
def test_an_unknown_model_is_not_found_by_id(client: TestClient, id: str) -> None:
    response = client.get(f"/v1/models/{id}")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_azures_path_names_the_model(client: TestClient) -> None:
    url = "/openai/deployments/{}/images/generations?api-version=2025-04-01"

    found = client.post(url.format("tiny"), json={"prompt": "a fox"})
    unknown = client.post(url.format("dall-e-3"), json={"prompt": "a fox"})

    assert from_base64(found.json()["data"][0]["b64_json"]).size == (64, 64)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("quality", "steps", "said"),
    [
        ("low", 2, "low"),
        ("auto", 4, "medium"),
        ("standard", 4, "medium"),
        ("medium", 4, "medium"),
        ("hd", 8, "high"),
        ("high", 8, "high"),
        ("xhigh", 12, "xhigh"),
        ("max", 16, "max"),
    ],
)
def test_quality_is_a_number_of_steps(client: TestClient, quality: str, steps: int, said: str) -> None:
    answer = client.post(URL, json={"prompt": "a fox", "quality": quality}).json()

    assert (answer["parameters"]["num_inference_steps"], answer["quality"]) == (steps, said)
    assert answer["warnings"] == []


def test_quality_next_to_a_number_of_steps_has_no_effect_and_the_answer_says_so(client: TestClient) -> None:
    answer = client.post(URL, json={"prompt": "a fox", "quality": "hd", "num_inference_steps": 1}).json()

    assert (answer["parameters"]["num_inference_steps"], answer["quality"]) == (1, "low")
    assert answer["warnings"] == ["quality has no effect next to num_inference_steps"]


def test_a_stream_that_asks_for_urls_has_b64_json_and_says_so(client: TestClient) -> None:
    response = client.post(URL, json={"prompt": "a fox", "response_format": "url", "stream": True})

    last = json.loads(response.text.strip().rpartition("data: ")[2])
    assert response.status_code == 200
    assert from_base64(last["b64_json"]).size == (64, 64)
    assert last["warnings"] == ["response_format url has no effect: a stream has its pictures as b64_json"]
