"""The official `openai` client, pointed here by its base_url alone."""

from __future__ import annotations

import base64
import io
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import ImageGenCompletedEvent
from PIL import Image

from tests.compat.conftest import KEY
from tests.fakes import FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server
from tests.unit.picture.incoming.test_uploads import encoded, left_red, with_hole
from tests.waiting import eventually


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def opened(b64_json: str | None) -> Image.Image:
    assert b64_json is not None
    return Image.open(io.BytesIO(base64.b64decode(b64_json)))


def replicas_of(server: LiveServer) -> list[dict[str, Any]]:
    replicas: list[dict[str, Any]] = httpx.get(
        f"{server.url}/health/ready", headers={"Authorization": f"Bearer {KEY}"}
    ).json()["replicas"]
    return replicas


def test_a_prompt_becomes_a_picture(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="a fox")

    assert answer.data is not None
    assert opened(answer.data[0].b64_json).size == (64, 64)


def test_every_parameter_of_the_client_is_taken(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt="a fox",
        model="black-forest-labs/FLUX.1-schnell",
        n=2,
        size="128x64",
        quality="hd",
        response_format="b64_json",
        output_format="webp",
        output_compression=80,
        background="opaque",
        moderation="low",
        style="vivid",
        user="someone",
        safety_identifier="someone",
    )

    assert answer.data is not None
    assert [opened(each.b64_json).format for each in answer.data] == ["WEBP", "WEBP"]
    assert (answer.size, answer.output_format, answer.background) == ("128x64", "webp", "opaque")
    assert answer.usage is not None
    assert answer.usage.output_tokens == 2 * 8 * 4
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_the_extensions_go_through_extra_body(client: openai.OpenAI) -> None:
    extensions: dict[str, Any] = {
        "seed": 7,
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "negative_prompt": "fog",
        "scheduler": "euler",
        "width": 96,
        "height": 128,
    }
    first, second = (client.images.generate(prompt="a fox", extra_body=extensions) for _ in range(2))

    assert first.data is not None
    assert second.data is not None
    assert opened(first.data[0].b64_json).size == (96, 128)
    assert first.data[0].b64_json == second.data[0].b64_json
    assert first.model_extra is not None
    assert first.model_extra["parameters"]["num_inference_steps"] == 2
    assert first.data[0].model_extra == {"seed": 7}


def test_headers_are_read_through_with_raw_response(client: openai.OpenAI) -> None:
    raw = client.images.with_raw_response.generate(
        prompt="a fox", user="me", style="vivid", extra_body={"seed": 7}, extra_headers={"x-request-id": "mine"}
    )

    assert raw.headers["x-request-id"] == "mine"
    assert raw.headers["x-safelight-seed"] == "7"
    assert len(raw.headers.get_list("x-safelight-warning")) == 2
    assert raw.parse().data is not None


def test_models_are_listed_and_retrieved_by_an_id_with_a_slash(client: openai.OpenAI) -> None:
    listed = client.models.list().data

    retrieved = client.models.retrieve("black-forest-labs/FLUX.1-schnell")
    assert [model.id for model in listed] == ["black-forest-labs/FLUX.1-schnell"]
    assert (retrieved.id, retrieved.owned_by) == ("black-forest-labs/FLUX.1-schnell", "black-forest-labs")


def test_a_bad_value_is_a_bad_request_with_param_and_code(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a fox", size="100x100")

    assert (caught.value.param, caught.value.code, caught.value.type) == (
        "size",
        "invalid_value",
        "invalid_request_error",
    )
    assert "the nearest is 96" in caught.value.message
    assert caught.value.request_id


def test_an_unknown_field_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a fox", extra_body={"steps": 4})

    assert (caught.value.param, caught.value.code) == ("steps", "unknown_parameter")


def test_a_prompt_of_ten_megabytes_is_refused_in_words_that_arrive(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="1048576 bytes") as caught:
        client.images.generate(prompt="x" * 10_000_000)

    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


def test_a_wrong_key_is_an_authentication_error(server: LiveServer) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.images.generate(prompt="a fox")

    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as generated:
        client.images.generate(prompt="a fox", model="dall-e-3")
    with pytest.raises(openai.NotFoundError) as retrieved:
        client.models.retrieve("someone/else")

    assert generated.value.code == retrieved.value.code == "model_not_found"


@pytest.mark.parametrize(("param", "value"), [("background", "transparent")])
def test_what_is_not_served_yet_is_a_bad_request_that_names_it(client: openai.OpenAI, param: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a fox", **{param: value})

    assert caught.value.param == param


def test_a_route_that_does_not_exist_is_not_found_with_a_message(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(POST /v1/chat/completions\)"):
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": "hi"}])


def test_the_azure_client_finds_its_path_and_sends_its_key(server: LiveServer) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=server.url, api_key=KEY, api_version="2025-04-01-preview", max_retries=0
    ) as client:
        answer = client.images.generate(prompt="a fox", model="fake")

    assert answer.data is not None
    assert opened(answer.data[0].b64_json).size == (64, 64)


def test_a_request_that_ran_out_of_time_is_not_sent_again(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))
    with (
        live_server(deployment, request_timeout_s=0.2) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client,
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            client.images.generate(prompt="a fox")
        gate.open()

        assert (caught.value.status_code, caught.value.code) == (408, "timeout")
        assert server.count("safelight_requests_total", dialect="openai") == 1


def test_a_request_that_found_the_queue_full_is_sent_again_until_there_is_room(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    deployment = FakeDeployment(
        options=FakeEngineOptions(gate=str(gate.path)), max_concurrent_requests=1, max_queued_requests=0
    )
    with (
        live_server(deployment) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=10) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        first, second = (pool.submit(client.images.generate, prompt="a fox") for _ in range(2))
        eventually(lambda: server.count("safelight_requests_total", status="429") >= 1)
        gate.open()

        assert first.result().data
        assert second.result().data


def test_a_stream_gives_partial_pictures_and_then_the_picture(client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt="a fox", stream=True, partial_images=2, extra_body={"seed": 7}))

    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events if event.type.endswith("partial_image")] == [0, 1]
    assert opened(events[0].b64_json).size == (16, 16)
    completed = events[-1]
    assert isinstance(completed, ImageGenCompletedEvent)
    assert opened(completed.b64_json).size == (64, 64)
    assert completed.usage.output_tokens == 16
    whole = client.images.generate(prompt="a fox", extra_body={"seed": 7})
    assert whole.data is not None
    assert completed.b64_json == whole.data[0].b64_json


def test_a_stream_of_several_pictures_completes_each(client: openai.OpenAI) -> None:
    events = list(client.images.generate(prompt="a fox", n=3, stream=True, partial_images=1))

    assert [event.type for event in events].count("image_generation.completed") == 3


def test_a_picture_of_a_stream_does_not_wait_for_its_siblings(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    gate.allow(4)  # the steps of the first picture: the second one joins it a step later
    with (
        live_server(FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        client.images.generate(prompt="a fox", n=2, stream=True, extra_body={"seed": 7}) as stream,
    ):
        first = next(stream)
        gate.open()
        second = next(stream)

        assert [(each.image_index, each.seed) for each in (first, second)] == [(0, 7), (1, 8)]  # type: ignore[union-attr]
        assert list(stream) == []


def test_a_stream_that_loses_its_replica_completes_each_picture_once(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    gate.allow(4)
    deployment = FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)), num_replicas=2)
    with (
        live_server(deployment) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        eventually(lambda: [each["state"] for each in replicas_of(server)] == ["ready", "ready"])
        with client.images.generate(prompt="a fox", n=2, stream=True, extra_body={"seed": 7}) as stream:
            first = next(stream)
            os.kill(replicas_of(server)[0]["pid"], signal.SIGKILL)
            gate.open()

            rest = list(stream)

    assert [(each.image_index, each.seed) for each in (first, *rest)] == [(0, 7), (1, 8)]  # type: ignore[union-attr]


def test_what_fails_in_a_stream_is_an_error_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="the model could not make this image"):
        list(client.images.generate(prompt="FAIL_STEP", stream=True))


def test_a_full_queue_is_a_rate_limit_for_a_stream_too(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    deployment = FakeDeployment(
        options=FakeEngineOptions(gate=str(gate.path)), max_concurrent_requests=1, max_queued_requests=0
    )
    with (
        live_server(deployment) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        client.images.generate(prompt="a fox", stream=True) as first,
    ):
        eventually(lambda: server.count("safelight_running") == 1)
        with pytest.raises(openai.RateLimitError):
            client.images.generate(prompt="a fox", stream=True)
        gate.open()

        assert [event.type for event in first] == ["image_generation.completed"]


def test_an_edit_is_a_picture_from_an_image(client: openai.OpenAI) -> None:
    edited, again, other = (
        client.images.edit(image=image, prompt="a fox", extra_body={"seed": 7})
        for image in (encoded(left_red()), encoded(left_red()), encoded(with_hole()))
    )

    assert edited.data is not None
    assert again.data is not None
    assert other.data is not None
    assert opened(edited.data[0].b64_json).size == (64, 64)
    assert edited.data[0].b64_json == again.data[0].b64_json != other.data[0].b64_json


def test_every_parameter_of_an_edit_is_taken(client: openai.OpenAI) -> None:
    answer = client.images.edit(
        image=[("fox.jpg", io.BytesIO(encoded(left_red(), "JPEG")))],
        mask=encoded(with_hole()),
        prompt="a fox",
        model="black-forest-labs/FLUX.1-schnell",
        n=2,
        size="128x64",
        quality="high",
        background="auto",
        input_fidelity="high",
        output_format="jpeg",
        output_compression=80,
        response_format="b64_json",
        user="someone",
        extra_body={"strength": 0.9, "num_inference_steps": 3, "seed": 7},
    )

    assert answer.data is not None
    assert [opened(each.b64_json).format for each in answer.data] == ["JPEG", "JPEG"]
    assert answer.size == "128x64"
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.image_tokens == 8 * 4
    assert answer.model_extra is not None
    assert answer.model_extra["parameters"]["strength"] == 0.9


def test_an_edit_streams(client: openai.OpenAI) -> None:
    events = list(client.images.edit(image=encoded(left_red()), prompt="a fox", stream=True, partial_images=1))

    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_a_variation_is_a_picture_from_an_image_alone(client: openai.OpenAI) -> None:
    answer = client.images.create_variation(image=encoded(left_red()), n=2, response_format="b64_json")

    assert answer.data is not None
    assert len(answer.data) == 2


def test_two_images_are_refused_as_long_as_the_model_reads_one(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="2 images were sent; the model starts from one") as caught:
        client.images.edit(image=[encoded(left_red())] * 2, prompt="a fox")

    assert caught.value.param == "image"


def test_a_url_leads_to_the_picture_without_a_key(tmp_path: Path) -> None:
    with (
        live_server(api_key=KEY, data_dir=tmp_path) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        answer = client.images.generate(prompt="a fox", n=2, response_format="url", extra_body={"seed": 7})
        whole = client.images.generate(prompt="a fox", n=2, extra_body={"seed": 7})

        assert answer.data is not None
        assert whole.data is not None
        for linked, sent in zip(answer.data, whole.data, strict=True):
            assert linked.url is not None
            assert sent.b64_json is not None
            assert linked.b64_json is None
            assert httpx.get(linked.url).content == base64.b64decode(sent.b64_json)
            assert httpx.get(linked.url + "0").status_code == 404
