"""The names of the model: Azure's v1 path, and aliases for clients that cannot name ours."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from starlette.testclient import TestClient

from safelight.errors import ConfigurationError
from tests.api.fake_dispatcher import FakeDispatcher
from tests.api.pictures import from_base64
from tests.unit.picture.incoming.test_uploads import encoded, left_red

URL = "/v1/images/generations"
LOOPBACK = {"host": "localhost"}


@pytest.mark.parametrize("query", ["", "?api-version=v1", "?api-version=preview"])
def test_azures_v1_path_answers_as_v1_does(client: TestClient, query: str) -> None:
    body = {"prompt": "a fox", "seed": 7, "model": "tiny"}
    files = {"image": ("a.png", encoded(left_red()))}

    made = client.post(f"/openai/v1/images/generations{query}", json=body)
    edited = client.post(f"/openai/v1/images/edits{query}", data={"prompt": "a fox"}, files=files)
    varied = client.post(f"/openai/v1/images/variations{query}", files=files)

    assert made.json()["data"] == client.post(URL, json=body).json()["data"]
    assert [each.status_code for each in (made, edited, varied)] == [200, 200, 200]


@pytest.mark.parametrize("root", ["/openai", "/openai/v1", "/v1"])
def test_the_models_are_on_azures_paths_too(client: TestClient, root: str) -> None:
    listed = client.get(f"{root}/models?api-version=2024-10-21").json()

    assert [each["id"] for each in listed["data"]] == ["tiny"]
    assert client.get(f"{root}/models/tiny").json() == listed["data"][0]
    assert client.get(f"{root}/models/nope").status_code == 404


def test_an_error_on_azures_v1_path_has_openais_envelope(client: TestClient) -> None:
    response = client.post("/openai/v1/images/generations", json={"prompt": "a", "model": "nope"})

    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("alias", ["dall-e-3", "DALL-E-3", "gpt-image-1"])
@pytest.mark.parametrize("path", [URL, "/openai/v1/images/generations", "/openai/deployments/{}/images/generations"])
def test_an_alias_is_a_name_of_the_model(connect: Callable[..., TestClient], alias: str, path: str) -> None:
    client = connect(model_aliases="dall-e-3=tiny,gpt-image-1=tiny")
    body = {"prompt": "a fox", "response_format": "b64_json", **({} if "{}" in path else {"model": alias})}

    answer = client.post(path.format(alias), json=body).json()

    assert from_base64(answer["data"][0]["b64_json"]).size == (64, 64)
    assert answer["parameters"]["model"] == "tiny"


def test_other_names_are_still_unknown_and_the_error_tells_the_aliases(connect: Callable[..., TestClient]) -> None:
    response = connect(model_aliases=("dall-e-3=tiny",)).post(URL, json={"prompt": "a", "model": "dall-e-4"})

    assert response.status_code == 404
    assert response.json()["error"]["message"].endswith("this server has: tiny, dall-e-3")


def test_a_name_that_is_cut_in_the_message_has_a_mark(client: TestClient) -> None:
    response = client.post(URL, json={"prompt": "a", "model": "m" * 1000})

    assert f"`{'m' * 128}…`" in response.json()["error"]["message"]


def test_a_star_stands_for_any_name(connect: Callable[..., TestClient]) -> None:
    client = connect(model_aliases=("*=tiny",))

    assert client.post(URL, json={"prompt": "a", "model": "gpt-image-1.5"}).status_code == 200
    assert client.get("/v1/models/whatever").json()["id"] == "tiny"
    assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["tiny"]


def test_aliases_are_listed_and_found(connect: Callable[..., TestClient]) -> None:
    client = connect(model="org/Some_FLUX.1", model_aliases=("dall-e-3=org/Some_FLUX.1", "dall-e-2=tiny"))

    listed = [each["id"] for each in client.get("/v1/models").json()["data"]]

    assert listed == ["org/Some_FLUX.1", "dall-e-2", "dall-e-3"]
    assert client.get("/v1/models/dall-e-3").json()["id"] == "dall-e-3"


def test_an_alias_of_a_model_that_is_not_served_keeps_the_server_from_starting(
    connect: Callable[..., TestClient],
) -> None:
    with pytest.raises(ConfigurationError, match=r"^model alias 2 of 2 is of a model that is not here; there is tiny$"):
        connect(model_aliases="gpt-image-1=tiny, dall-e-3=other")


@pytest.mark.parametrize("alias", ["dall-e-2", "DALL-E-3"])
@pytest.mark.parametrize("entry", ["{}=tiny", "*=tiny"])
@pytest.mark.parametrize("path", [URL, "/openai/deployments/{}/images/generations", "/v1/images/edits"])
def test_who_asks_for_dall_e_gets_links_as_from_openai(
    connect: Callable[..., TestClient], alias: str, entry: str, path: str
) -> None:
    client = connect(model_aliases=(entry.format(alias),))

    by_default, as_asked = (
        _ask(client, path.format(alias), {"prompt": "a", "model": alias, **wanted})
        for wanted in ({}, {"response_format": "b64_json"})
    )

    link = by_default.json()["data"][0]["url"]
    assert client.get(link.removeprefix("http://localhost")).headers["content-type"] == "image/png"
    assert from_base64(as_asked.json()["data"][0]["b64_json"]).size == (64, 64)


def _ask(client: TestClient, path: str, body: dict[str, str]) -> httpx2.Response:
    if path.endswith("edits"):
        return client.post(path, data=body, files={"image": ("a.png", encoded(left_red()))}, headers=LOOPBACK)
    return client.post(path, json=body, headers=LOOPBACK)


@pytest.mark.parametrize("model", [None, "tiny", "gpt-image-1"])
def test_the_default_of_response_format_can_be_set_for_the_rest(
    connect: Callable[..., TestClient], model: str | None
) -> None:
    plain = connect(model_aliases=("*=tiny",))
    linking = connect(model_aliases=("*=tiny",), default_response_format="url")
    body = {"prompt": "a", "model": model}

    assert "b64_json" in plain.post(URL, json=body, headers=LOOPBACK).json()["data"][0]
    assert "url" in linking.post(URL, json=body, headers=LOOPBACK).json()["data"][0]
    streamed = linking.post(URL, json={**body, "stream": True})
    assert (streamed.status_code, '"warnings": []' in streamed.text) == (200, True)


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("1024x1024", (256, 256)),
        ("1792x1024", (256, 144)),
        ("1024x1792", (144, 256)),
        ("1536x1024", (256, 176)),
        ("100x64", (96, 64)),
        ("16x16", (32, 32)),
        ("1x99999", (32, 256)),
        ("128x96", (128, 96)),
    ],
)
def test_a_size_that_cannot_be_made_becomes_the_nearest_of_its_shape_and_the_answer_says_so(
    connect: Callable[..., TestClient], asked: str, made: tuple[int, int]
) -> None:
    client = connect(fit_sizes=True)
    width, height = map(int, asked.split("x"))

    by_openai = client.post(URL, json={"prompt": "a", "size": asked}).json()
    by_inputs = client.post("/", json={"inputs": "a", "parameters": {"width": width, "height": height}})
    edited = client.post(
        "/v1/images/edits", data={"prompt": "a", "size": asked}, files={"image": ("a.png", encoded(left_red()))}
    ).json()

    said = (
        [] if asked == "128x96" else [f"size {asked} is not possible on tiny; the nearest is made: {made[0]}x{made[1]}"]
    )
    assert from_base64(by_openai["data"][0]["b64_json"]).size == made
    assert (by_openai["size"], by_openai["warnings"]) == (f"{made[0]}x{made[1]}", said)
    assert by_inputs.headers.get_list("x-safelight-warning") == said
    assert edited["size"] == f"{made[0]}x{made[1]}"
    assert [each for each in edited["warnings"] if "not possible" in each] == said


@pytest.mark.parametrize("size", ["0x64", "64x0", "0x0", "big"])
def test_what_is_no_size_is_refused_all_the_same(connect: Callable[..., TestClient], size: str) -> None:
    response = connect(fit_sizes=True).post(URL, json={"prompt": "a", "size": size})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "size")


@pytest.mark.parametrize("width", [-64, 100_001, 10**400])
def test_a_width_that_nobody_means_is_refused_all_the_same(
    connect: Callable[..., TestClient], dispatcher: FakeDispatcher, width: int
) -> None:
    response = connect(fit_sizes=True).post("/", json={"inputs": "a", "parameters": {"width": width}})

    assert response.status_code == 400
    assert not dispatcher.requests
