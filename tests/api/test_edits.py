"""Pictures from pictures: OpenAI's edits and variations in both body forms, and Hugging Face's image-to-image."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.api.fake_dispatcher import FakeDispatcher
from tests.unit.picture.incoming.test_still_pictures import NOT_READ
from tests.unit.picture.incoming.test_uploads import animated, encoded, left_red, png_of_size, with_hole

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
PICTURE, MASK = encoded(left_red()), encoded(with_hole())


def as_data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def error_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


@pytest.mark.parametrize("path", [EDITS, "/openai/deployments/tiny/images/edits"])
def test_an_image_and_a_prompt_as_a_form_become_a_picture(
    client: TestClient, dispatcher: FakeDispatcher, path: str
) -> None:
    form = {"prompt": "a fox", "n": "2", "seed": "7", "strength": "0.5", "num_inference_steps": "8"}

    response = client.post(path, data=form, files={"image": PICTURE})

    answer = response.json()
    assert [image["seed"] for image in answer["data"]] == [7, 8]
    assert (answer["size"], answer["parameters"]["strength"]) == ("64x64", 0.5)
    assert answer["usage"]["input_tokens_details"] == {"text_tokens": 5, "image_tokens": 16}
    request = dispatcher.requests[0]
    assert request.source is not None
    assert request.source.pixels == left_red().tobytes()
    assert (request.prompt, request.num_inference_steps) == ("a fox", 8)


def test_a_mask_says_where(client: TestClient, dispatcher: FakeDispatcher) -> None:
    client.post(EDITS, data={"prompt": "a fox"}, files={"image": PICTURE, "mask": MASK})

    source = dispatcher.requests[0].source
    assert source is not None
    assert source.mask is not None
    assert source.mask[0] == 255
    assert source.strength == 1.0


def test_images_and_mask_may_be_data_urls(client: TestClient, dispatcher: FakeDispatcher) -> None:
    body = {
        "prompt": "a fox",
        "images": [{"image_url": as_data_url(PICTURE)}],
        "mask": {"image_url": as_data_url(MASK)},
        "size": "128x96",
    }

    response = client.post(EDITS, json=body)

    assert response.json()["size"] == "128x96"
    source = dispatcher.requests[0].source
    assert source is not None
    assert source.mask is not None
    assert len(source.mask) == 128 * 96


@pytest.mark.parametrize("fields", [{}, {"prompt": "in the snow"}])
def test_a_variation_needs_no_prompt(client: TestClient, dispatcher: FakeDispatcher, fields: dict[str, str]) -> None:
    response = client.post(VARIATIONS, data=fields | {"n": "2"}, files={"image": PICTURE})

    assert len(response.json()["data"]) == 2
    assert dispatcher.requests[0].prompt == fields.get("prompt", "")


def test_an_edit_can_be_streamed(client: TestClient) -> None:
    form = {"prompt": "a fox", "stream": "true", "partial_images": "1"}

    response = client.post(EDITS, data=form, files={"image[]": PICTURE})

    names = [line for line in response.text.splitlines() if line.startswith("event: ")]
    assert names == ["event: image_edit.partial_image", "event: image_edit.completed"]


def test_what_is_changed_or_has_no_effect_is_said(client: TestClient) -> None:
    picture = encoded(left_red((100, 60)))
    form = {"prompt": "a fox", "input_fidelity": "high"}

    answer = client.post(EDITS, data=form, files={"image": picture}).json()

    assert answer["warnings"] == [
        "input_fidelity has no effect: strength says how much of the picture is kept",
        "image was scaled from 100x60 to 96x64",
    ]


FILES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no image": ({"mask": MASK}, "image", "missing"),
    "no picture": ({"image": b"a fox"}, "image", "no PNG, JPEG, WebP"),
    "broken": ({"image": PICTURE[:90]}, "image", "broken"),
    "animated": ({"image": animated("WEBP")}, "image", "animated"),
    "a bomb": ({"image": png_of_size(60_000, 60_000)}, "image", "pixels"),
    "two images": ([("image[]", PICTURE), ("image[]", PICTURE)], "image", "starts from one"),
    "two masks": ([("image", PICTURE), ("mask", MASK), ("mask", MASK)], "mask", "more than once"),
    "a mask of another size": ({"image": PICTURE, "mask": encoded(with_hole((32, 32)))}, "mask", "one size"),
    "an opaque mask": ({"image": PICTURE, "mask": PICTURE}, "mask", "no transparent pixels"),
}  # type: ignore[dict-item]


@pytest.mark.parametrize(("files", "param", "words"), FILES.values(), ids=FILES)
def test_files_that_cannot_be_used_are_refused_by_name(
    client: TestClient, dispatcher: FakeDispatcher, files: Any, param: str, words: str
) -> None:
    error = error_of(client.post(EDITS, data={"prompt": "a fox"}, files=files))

    assert (error["param"], dispatcher.requests) == (param, [])
    assert words in error["message"]


FIELDS: dict[str, tuple[dict[str, str], str, str]] = {
    "no prompt": ({}, "prompt", "missing_required_parameter"),
    "n is no number": ({"prompt": "a", "n": "two"}, "n", "invalid_type"),
    "a strength of 0": ({"prompt": "a", "strength": "0"}, "strength", "invalid_value"),
    "a strength of 2": ({"prompt": "a", "strength": "2"}, "strength", "invalid_value"),
    "a size that is not possible": ({"prompt": "a", "size": "100x100"}, "size", "invalid_value"),
    "an enormous size": ({"prompt": "a", "size": "99999x99999"}, "size", "invalid_value"),
    "an unknown field": ({"prompt": "a", "steps": "4"}, "steps", "unknown_parameter"),
    "an image that is text": ({"prompt": "a", "image": "x"}, "image", "invalid_type"),
    "transparency": ({"prompt": "a", "background": "transparent"}, "background", "invalid_value"),
}


@pytest.mark.parametrize(("fields", "param", "code"), FIELDS.values(), ids=FIELDS)
def test_fields_that_make_no_sense_are_refused_by_name(
    client: TestClient, dispatcher: FakeDispatcher, fields: dict[str, str], param: str, code: str
) -> None:
    error = error_of(client.post(EDITS, data=fields, files={"image": PICTURE}))

    assert (error["param"], error["code"], dispatcher.requests) == (param, code, [])


@pytest.mark.parametrize(
    ("url", "words"),
    [("https://example.org/a.png", "data URL"), ("data:image/png;base64,&", "no base64"), ("", "data URL")],
)
def test_nothing_is_fetched_for_a_client(client: TestClient, url: str, words: str) -> None:
    error = error_of(client.post(EDITS, json={"prompt": "a", "images": [{"image_url": url}]}))

    assert error["param"] == "images"
    assert words in error["message"]


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=x", "multipart/form-data; boundary="]
)
@pytest.mark.parametrize("content", [b"", b"--x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", b"a fox"])
def test_a_form_that_is_none_is_a_bad_request(client: TestClient, content_type: str, content: bytes) -> None:
    response = client.post(EDITS, content=content, headers={"Content-Type": content_type})

    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("path", [EDITS, "/"])
def test_uploads_have_a_limit_of_their_own(connect: Callable[..., TestClient], path: str) -> None:
    client = connect(max_body_bytes=1024, max_upload_bytes=200_000)
    picture = encoded(left_red((2000, 2000)), "JPEG", quality=50)
    assert 1024 < len(picture) < 200_000

    def send(content: bytes) -> int:
        if path == EDITS:
            return client.post(EDITS, data={"prompt": "a"}, files={"image": content}).status_code
        return client.post(path, content=content).status_code

    assert send(picture) == 200
    assert send(picture + bytes(200_000)) == 413


def test_more_pixels_than_the_server_decodes_are_refused(connect: Callable[..., TestClient]) -> None:
    client = connect(max_upload_pixels=4000)

    error = error_of(client.post(EDITS, data={"prompt": "a"}, files={"image": PICTURE}))

    assert error["message"] == "image is 64x64; at most 4000 pixels are read, so send it smaller"


@pytest.mark.parametrize("path", ["/", "/predict", "/score"])
def test_hugging_faces_image_to_image_takes_the_image_as_the_body(
    client: TestClient, dispatcher: FakeDispatcher, path: str
) -> None:
    response = client.post(path, content=PICTURE, params={"strength": "0.5", "prompt": "7"})

    assert response.status_code == 200
    request = dispatcher.requests[0]
    assert request.source is not None
    assert (request.source.pixels, request.source.strength) == (left_red().tobytes(), 0.5)
    assert request.prompt == "7"


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_hugging_faces_image_to_image_takes_base64_and_parameters(
    client: TestClient, dispatcher: FakeDispatcher, prefix: str
) -> None:
    parameters = {"prompt": "a fox", "target_size": {"width": 128, "height": 64}, "num_inference_steps": 2}
    body = {"inputs": prefix + base64.b64encode(PICTURE).decode(), "parameters": parameters}

    response = client.post("/", json=body, headers={"Accept": "image/png"})

    assert Image.open(io.BytesIO(response.content)).size == (128, 64)
    assert json.loads(response.headers["x-safelight-parameters"])["strength"] == 0.6
    assert dispatcher.requests[0].prompt == "a fox"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PICTURE[:90], "inputs is broken"),
        (encoded(left_red(), "TIFF"), "inputs is TIFF, which is not read; send PNG, JPEG"),
        (animated("GIF"), "inputs is animated"),
        (json.dumps({"inputs": base64.b64encode(PICTURE).decode() + "!"}).encode(), "inputs is no base64"),
        (json.dumps({"inputs": "data:image/png," + "a" * 64}).encode(), "inputs must be a data URL"),
    ],
)
def test_an_image_that_is_none_is_refused_on_hugging_faces_routes(
    client: TestClient, dispatcher: FakeDispatcher, content: bytes, words: str
) -> None:
    response = client.post("/", content=content)

    assert response.status_code == 400
    assert words in response.json()["error"]
    assert dispatcher.requests == []


def test_hugging_faces_image_to_image_paints_the_transparent_part_anew(
    client: TestClient, dispatcher: FakeDispatcher
) -> None:
    response = client.post("/", content=MASK)

    source = dispatcher.requests[0].source
    assert source is not None
    assert source.mask is not None
    assert set(source.mask) == {0, 255}
    assert "transparent part of inputs is painted anew" in response.headers["x-safelight-warning"]


@pytest.mark.parametrize("name", ["mask_image", "mask"])
@pytest.mark.parametrize("place", ["parameters", "body"])
def test_a_mask_beside_the_image_is_refused_with_what_does_the_same(
    client: TestClient, dispatcher: FakeDispatcher, name: str, place: str
) -> None:
    mask = {name: base64.b64encode(MASK).decode()}
    rest = {"parameters": mask} if place == "parameters" else mask

    response = client.post("/", json={"inputs": base64.b64encode(PICTURE).decode(), **rest})

    assert (response.status_code, dispatcher.requests) == (400, [])
    assert response.json()["error"].startswith(f"{name} is not read here")
    assert "/v1/images/edits" in response.json()["error"]


def test_strength_without_an_image_has_no_effect_and_the_answer_says_so(client: TestClient) -> None:
    response = client.post("/", json={"inputs": "a fox", "parameters": {"strength": 0.5}})

    assert response.headers["x-safelight-warning"] == "strength has no effect: inputs is no image to start from"


def painted_from(dispatcher: FakeDispatcher) -> bytes | None:
    """The pixels that the last request started from; None if it was painted from its prompt alone."""
    source = dispatcher.requests[-1].source
    return None if source is None else source.pixels


@pytest.mark.parametrize("format", ["AVIF", "GIF", "BMP"])
@pytest.mark.parametrize("prompt", [None, "a fox"])
def test_every_format_that_is_read_may_be_the_inputs(
    client: TestClient, dispatcher: FakeDispatcher, format: str, prompt: str | None
) -> None:
    content = encoded(left_red(), format)
    parameters = {"strength": 0.5} if prompt is None else {"prompt": prompt}

    response = client.post("/", json={"inputs": base64.b64encode(content).decode(), "parameters": parameters})

    assert response.status_code == 200, response.text
    assert painted_from(dispatcher) is not None
    assert dispatcher.requests[0].prompt == (prompt or "")


@pytest.mark.parametrize("prompt", [None, "a fox"])
@pytest.mark.parametrize("path", ["/", "/predict", "/score"])
@pytest.mark.parametrize("name", NOT_READ)
def test_a_format_that_is_not_read_is_refused_and_never_painted_as_a_prompt(
    client: TestClient, dispatcher: FakeDispatcher, name: str, path: str, prompt: str | None
) -> None:
    content, known_as = NOT_READ[name]
    inputs = base64.b64encode(content + bytes(200)).decode()

    response = client.post(path, json={"inputs": inputs, "parameters": {"prompt": prompt}})

    assert (response.status_code, dispatcher.requests) == (400, [])
    assert f"inputs is {known_as}, which is not read; send PNG, JPEG" in response.text


WAYS: dict[str, Callable[[bytes], str]] = {
    "in lines": lambda content: base64.encodebytes(content).decode(),
    "in lines of Windows": lambda content: base64.encodebytes(content).decode().replace("\n", "\r\n"),
    "in indented lines": lambda content: base64.encodebytes(content).decode().replace("\n", "\n   "),
    "with spaces around": lambda content: "  " + base64.b64encode(content).decode() + " \t\n",
    "in URL-safe letters": lambda content: base64.urlsafe_b64encode(content).decode(),
    "without padding": lambda content: base64.urlsafe_b64encode(content).decode().rstrip("="),
    "as a data URL": lambda content: "data:image/png;base64," + base64.b64encode(content).decode(),
    "as a data URL of bytes": lambda content: (
        "data:application/octet-stream;base64," + base64.b64encode(content).decode()
    ),
    "as a data URL of nothing": lambda content: "data:;base64," + base64.b64encode(content).decode(),
    "as a data URL with parameters": lambda content: (
        "DATA:image/png;name=a.png;BASE64," + base64.b64encode(content).decode()
    ),
    "as an escaped data URL": lambda content: (
        "data:image/png;base64," + quote(base64.b64encode(content).decode(), safe="")
    ),
}
NOISE = encoded(Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3)), "BMP")
"""Whose base64 has every letter, and no beginning that tells it from a prompt."""


@pytest.mark.parametrize("prompt", [None, "a fox"])
@pytest.mark.parametrize("way", WAYS)
def test_base64_is_read_however_it_is_written(
    client: TestClient, dispatcher: FakeDispatcher, way: str, prompt: str | None
) -> None:
    assert {"+", "/"} <= set(base64.b64encode(NOISE).decode())

    response = client.post("/", json={"inputs": WAYS[way](NOISE), "parameters": {"prompt": prompt}})

    assert response.status_code == 200, response.text
    assert painted_from(dispatcher) == Image.open(io.BytesIO(NOISE)).tobytes()


@pytest.mark.parametrize("dress", ["b'{}'", '"{}"', "'{}'", "base64,{}"])
@pytest.mark.parametrize("content", [PICTURE, NOISE], ids=["signed", "unsigned"])
def test_base64_in_a_dress_is_refused_and_never_painted_as_a_prompt(
    client: TestClient, dispatcher: FakeDispatcher, content: bytes, dress: str
) -> None:
    """`str()` of what Python's `b64encode` returns, or JSON that was encoded twice."""
    response = client.post("/", json={"inputs": dress.format(base64.b64encode(content).decode())})

    assert (response.status_code, dispatcher.requests) == (400, [])
    assert "inputs is no base64" in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "request_of"),
    [
        ("/", {"json": {"inputs": base64.b64encode(PICTURE).decode(), "parameters": {"width": 0}}}),
        ("/", {"json": {"inputs": base64.b64encode(PICTURE).decode(), "target_size": {"width": 64, "height": 0}}}),
        (EDITS, {"data": {"prompt": "a fox", "size": "0x0"}, "files": {"image": PICTURE}}),
        (EDITS, {"data": {"prompt": "a fox", "width": "64", "height": "0"}, "files": {"image": PICTURE}}),
    ],
)
def test_a_side_of_zero_is_no_size_though_the_image_has_one(
    client: TestClient, dispatcher: FakeDispatcher, path: str, request_of: dict[str, Any]
) -> None:
    response = client.post(path, **request_of)

    assert (response.status_code, dispatcher.requests) == (400, [])
    assert " 0 is not possible" in response.text


@pytest.mark.parametrize("way", [way for way in WAYS if "data URL" in way])
def test_data_urls_of_edits_are_read_however_they_are_written(
    client: TestClient, dispatcher: FakeDispatcher, way: str
) -> None:
    response = client.post(EDITS, json={"prompt": "a fox", "images": [{"image_url": WAYS[way](NOISE)}]})

    assert response.status_code == 200, response.text
    assert painted_from(dispatcher) == Image.open(io.BytesIO(NOISE)).tobytes()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("https://example.org/cat.png", "inputs is a URL, and nothing is fetched for a client"),
        (" HTTP://example.org/cat.png", "inputs is a URL"),
        ("s3://bucket/cat.png", "inputs is a URL"),
        ("file:///etc/passwd", "inputs is a URL"),
        ("a red fox in the snow", "inputs is no base64; beside a prompt it is an image"),
        ("cat.png", "inputs is no base64"),
        ("fox1", "inputs is no PNG"),
        ("", "inputs is no PNG"),
        ("data:image/png,abc", "inputs must be a data URL"),
        (base64.b64encode(PICTURE).decode()[:60] + " " + base64.b64encode(PICTURE).decode()[60:], "no base64"),
    ],
)
def test_beside_a_prompt_of_its_own_inputs_is_an_image_or_refused(
    client: TestClient, dispatcher: FakeDispatcher, inputs: str, words: str
) -> None:
    response = client.post("/", json={"inputs": inputs, "parameters": {"prompt": "a tiger"}})

    assert (response.status_code, dispatcher.requests) == (400, [])
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    "prompt",
    [
        "https://example.org/cat.png",
        "a" * 255,
        "fox " * 200,
        "\n".join(["fox", "snow", "moon"] * 40),
        "a-long-name-in-a-prompt " * 20,
        "\u72d0" * 300,
        "data: a fox",
        "BMW in the snow",
    ],
)
def test_what_can_be_a_prompt_stays_one(client: TestClient, dispatcher: FakeDispatcher, prompt: str) -> None:
    assert client.post("/", json={"inputs": prompt}).status_code == 200
    assert (dispatcher.requests[0].prompt, painted_from(dispatcher)) == (prompt, None)


@pytest.mark.parametrize("way", ["in lines", "in URL-safe letters", "as a data URL"])
@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_every_kind_of_upload_has_the_limit_of_uploads(
    connect: Callable[..., TestClient], way: str, slash: str
) -> None:
    client = connect(max_body_bytes=1024, max_upload_bytes=200_000)
    body = json.dumps({"inputs": WAYS[way](NOISE), "parameters": {"prompt": "a fox"}}).replace("/", slash)

    assert client.post("/", content=body).status_code == 200
    assert client.post("/", json={"inputs": "a fox " * 200}).status_code == 413
