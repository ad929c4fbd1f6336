"""Streams and edits from the real server process and the real engine, read with the official client."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from tests.e2e.processes import Server, running_server
from tests.waiting import eventually


@pytest.fixture(scope="module")
def server(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    arguments = [str(tiny_flux_folder), "--device", "cpu", "--data-dir", str(tmp_path_factory.mktemp("data"))]
    with running_server(*arguments) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def pixels_of(b64_json: str | None) -> np.ndarray:
    assert b64_json is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(b64_json)))).astype(int)


@pytest.mark.parametrize(("decoder", "width"), [("projection", 16), ("autoencoder", 64)])
def test_previews_are_of_this_picture_and_come_nearer_to_it(client: openai.OpenAI, decoder: str, width: int) -> None:
    options = {"seed": 7, "num_inference_steps": 12, "preview_decoder": decoder}
    *partials, completed = client.images.generate(prompt="a cat", stream=True, partial_images=3, extra_body=options)

    previews = [pixels_of(each.b64_json) for each in partials]
    picture = pixels_of(completed.b64_json)
    factor = 64 // width
    small = picture.reshape(width, factor, width, factor, 3).mean((1, 3))
    errors = [np.abs(preview - small).mean() for preview in previews]
    assert len(previews) == 3
    assert errors[-1] < errors[0]


def test_an_edit_keeps_what_its_mask_keeps(client: openai.OpenAI) -> None:
    original = Image.effect_noise((64, 64), 50).convert("RGB")
    mask = Image.new("RGBA", (64, 64), "white")
    mask.paste((0, 0, 0, 0), (0, 0, 16, 64))
    files = [io.BytesIO(), io.BytesIO()]
    for image, file in zip((original, mask), files, strict=True):
        image.save(file, "PNG")

    one, other = (
        client.images.edit(
            image=files[0].getvalue(), mask=files[1].getvalue(), prompt=prompt, extra_body={"seed": 7}
        ).data
        for prompt in ("a cat", "a dog on the moon")
    )

    assert one is not None
    assert other is not None
    first, second = pixels_of(one[0].b64_json), pixels_of(other[0].b64_json)
    assert np.abs(first - second)[:, :16].mean() > 1
    for picture in (first, second):
        assert np.array_equal(picture[:, 24:], np.asarray(original)[:, 24:])  # a seam of 8 pixels is neither


def test_no_signature_of_a_link_and_no_prompt_of_a_url_is_logged(server: Server, client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="a cat", response_format="url")
    assert answer.data is not None
    assert httpx.get(str(answer.data[0].url)).status_code == 200
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    httpx.post(server.url, params={"prompt": "a secret fox"}, content=picture.getvalue(), timeout=60).raise_for_status()

    eventually(lambda: '"POST / HTTP/1.1" 200' in server.text)
    assert '.png HTTP/1.1" 200' in server.text
    assert "signature" not in server.text
    assert "fox" not in server.text
