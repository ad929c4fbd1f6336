"""`huggingface_hub.InferenceClient`, pointed here by its URL alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ImageToImageTargetSize, InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from tests.compat.conftest import KEY
from tests.live_server import LiveServer
from tests.unit.picture.incoming.test_still_pictures import NOT_READ
from tests.unit.picture.incoming.test_uploads import encoded, left_red, with_hole

PATHS = ["", "/", "/predict", "/score"]


@pytest.mark.parametrize("path", PATHS)
def test_a_prompt_becomes_a_picture_on_every_route(server: LiveServer, path: str) -> None:
    client = InferenceClient(server.url + path, token=KEY)

    assert client.text_to_image("a fox").size == (64, 64)


def test_the_url_may_be_the_base_url(server: LiveServer) -> None:
    client = InferenceClient(base_url=f"{server.url}/score", api_key=KEY)

    assert client.text_to_image("a fox").size == (64, 64)


def test_all_seven_parameters_are_taken(server: LiveServer) -> None:
    picture = InferenceClient(f"{server.url}/score", token=KEY).text_to_image(
        "a fox",
        negative_prompt="fog",
        height=128,
        width=96,
        num_inference_steps=7,
        guidance_scale=4.0,
        scheduler="FlowMatchHeunDiscreteScheduler",
        seed=0,
    )

    assert picture.size == (96, 128)


@pytest.mark.parametrize(
    "change",
    [
        {"negative_prompt": "rain"},
        {"num_inference_steps": 3},
        {"guidance_scale": 5.0},
        {"scheduler": "FlowMatchLCMScheduler"},
        {"seed": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_changes_the_picture(server: LiveServer, change: dict[str, object]) -> None:
    client = InferenceClient(f"{server.url}/score", token=KEY)
    parameters = {"negative_prompt": "fog", "num_inference_steps": 2, "guidance_scale": 4.0, "seed": 1}

    one = client.text_to_image("a fox", **parameters)  # type: ignore[arg-type]
    other = client.text_to_image("a fox", **parameters | change)  # type: ignore[arg-type]

    assert not np.array_equal(np.asarray(one), np.asarray(other))


def test_the_same_seed_is_the_same_picture_and_no_seed_is_another(server: LiveServer) -> None:
    client = InferenceClient(f"{server.url}/predict", token=KEY)

    same = [client.text_to_image("a fox", seed=11).tobytes() for _ in range(2)]
    drawn = {client.text_to_image("a fox").tobytes() for _ in range(3)}

    assert same[0] == same[1]
    assert len(drawn) == 3


def test_extra_body_reaches_the_parameters(server: LiveServer) -> None:
    client = InferenceClient(server.url, token=KEY)

    picture = client.text_to_image("a fox", extra_body={"target_size": {"width": 32, "height": 48}})

    assert picture.size == (32, 48)


@pytest.mark.parametrize("path", PATHS)
def test_a_bad_value_is_a_bad_request_that_says_what_is_right(server: LiveServer, path: str) -> None:
    client = InferenceClient(server.url + path, token=KEY)

    with pytest.raises(BadRequestError, match="the nearest is 96") as caught:
        client.text_to_image("a fox", width=100)

    assert caught.value.response.headers["x-request-id"] in str(caught.value)


def test_an_unknown_scheduler_is_refused_with_those_that_work(server: LiveServer) -> None:
    with pytest.raises(BadRequestError, match="FlowMatchEulerDiscreteScheduler"):
        InferenceClient(server.url, token=KEY).text_to_image("a fox", scheduler="DDIMScheduler")


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_key_is_a_401_with_the_reason(server: LiveServer, path: str) -> None:
    with pytest.raises(HfHubHTTPError, match="Incorrect API key") as caught:
        InferenceClient(server.url + path, token="wrong").text_to_image("a fox")

    assert caught.value.response.status_code == 401


def test_an_accept_header_of_the_users_own_is_followed(server: LiveServer) -> None:
    client = InferenceClient(f"{server.url}/score", token=KEY, headers={"Accept": "image/webp"})

    assert client.text_to_image("a fox").size == (64, 64)


@pytest.mark.parametrize("path", PATHS)
def test_an_image_becomes_a_picture(server: LiveServer, path: str) -> None:
    client = InferenceClient(server.url + path, token=KEY)

    assert client.image_to_image(encoded(left_red())).size == (64, 64)


def test_image_to_image_takes_its_parameters(server: LiveServer) -> None:
    client = InferenceClient(f"{server.url}/score", token=KEY)
    parameters: dict[str, Any] = {
        "prompt": "a fox",
        "negative_prompt": "fog",
        "guidance_scale": 4.0,
        "num_inference_steps": 3,
        "target_size": ImageToImageTargetSize(width=128, height=96),
        "strength": 0.9,
        "seed": 7,
    }

    one, same, other = (client.image_to_image(encoded(left_red()), **parameters | {"seed": seed}) for seed in (7, 7, 8))

    assert one.size == (128, 96)
    assert one.tobytes() == same.tobytes() != other.tobytes()


def test_a_mask_is_the_transparent_part_of_the_image(server: LiveServer) -> None:
    client = InferenceClient(f"{server.url}/score", token=KEY)

    masked = client.image_to_image(encoded(with_hole()), prompt="a fox", seed=7)

    assert masked.tobytes() != client.image_to_image(encoded(left_red()), prompt="a fox", seed=7).tobytes()
    with pytest.raises(BadRequestError, match="mask_image is not read here"):
        client.image_to_image(encoded(left_red()), prompt="a fox", mask_image="iVBORw0KGgo=")


def test_a_broken_image_is_a_bad_request_that_says_so(server: LiveServer) -> None:
    with pytest.raises(BadRequestError, match="inputs is broken"):
        InferenceClient(server.url, token=KEY).image_to_image(encoded(left_red())[:90])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP"])
def test_a_file_of_every_format_that_is_read_becomes_a_picture(
    server: LiveServer, tmp_path: Path, format: str, path: str
) -> None:
    file = tmp_path / f"fox.{format.lower()}"
    file.write_bytes(encoded(left_red((100, 60)), format))
    client = InferenceClient(server.url + path, token=KEY)

    assert client.image_to_image(str(file), prompt="a tiger").size == (96, 64)
    assert client.image_to_image(file.read_bytes()).size == (96, 64)


@pytest.mark.parametrize("prompt", [None, "a tiger"])
@pytest.mark.parametrize("name", NOT_READ)
def test_a_file_of_another_format_is_a_bad_request_that_names_it(
    server: LiveServer, name: str, prompt: str | None
) -> None:
    content, known_as = NOT_READ[name]
    client = InferenceClient(f"{server.url}/score", token=KEY)

    with pytest.raises(BadRequestError, match=f"inputs is {known_as}, which is not read; send PNG"):
        client.image_to_image(content, prompt=prompt)
