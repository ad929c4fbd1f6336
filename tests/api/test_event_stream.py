"""Pictures that are told while they happen: `stream` for OpenAI, `Accept: text/event-stream` for Hugging Face."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
from collections.abc import AsyncGenerator
from typing import Any, NoReturn

import httpx
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from safelight.api.http import event_stream
from safelight.api.http.event_stream import EventStream
from safelight.api.huggingface.answers import event_renderer
from safelight.errors import EngineFailure, Overloaded
from safelight.picture.generation import Event, Step
from tests.api.fake_dispatcher import FakeDispatcher
from tests.fakes import DEADLINE_S, fake_request

GENERATIONS = "/v1/images/generations"
ACCEPT = {"Accept": "text/event-stream"}


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """(event, data) of every frame."""
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = [dict(line.split(": ", 1) for line in each.splitlines()) for each in response.text.split("\n\n") if each]
    return [(each["event"], json.loads(each["data"])) for each in frames]


def opened(content: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_partial_pictures_come_before_the_picture(client: TestClient) -> None:
    response = client.post(GENERATIONS, json={"prompt": "a fox", "stream": True, "partial_images": 3, "seed": 7})

    events = events_of(response)
    assert [name for name, _ in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [data["partial_image_index"] for _, data in events[:3]] == [0, 1, 2]
    assert all(data["type"] == name and opened(data["b64_json"]).size == (64, 64) for name, data in events)
    completed = events[-1][1]
    assert (completed["size"], completed["quality"], completed["background"]) == ("64x64", "medium", "opaque")
    assert (completed["output_format"], completed["seed"]) == ("png", 7)
    assert completed["usage"]["output_tokens"] == 16


def test_steps_are_told_to_who_asks_for_them(client: TestClient) -> None:
    response = client.post(GENERATIONS, json={"prompt": "a fox", "stream": True, "step_events": True})

    steps = [data for name, data in events_of(response) if name == "image_generation.step"]
    assert [(each["image_index"], each["step_index"], each["num_steps"]) for each in steps] == [
        (0, index, 4) for index in (1, 2, 3, 4)
    ]
    answer = client.post(GENERATIONS, json={"prompt": "a fox", "step_events": True}).json()
    assert answer["warnings"] == ["step_events have no effect without stream: true"]


def test_the_place_in_the_queue_is_told_to_who_asks_for_it(client: TestClient, dispatcher: FakeDispatcher) -> None:
    dispatcher.positions = (2, 1)

    response = client.post(GENERATIONS, json={"prompt": "a fox", "stream": True, "queue_events": True})
    unasked = client.post(GENERATIONS, json={"prompt": "a fox", "stream": True})

    told = [(name, data["position"]) for name, data in events_of(response) if "position" in data]
    assert told == [("image_generation.queued", 2), ("image_generation.queued", 1)]
    assert [name for name, _ in events_of(unasked)] == ["image_generation.completed"]
    answer = client.post(GENERATIONS, json={"prompt": "a fox", "queue_events": True}).json()
    assert answer["warnings"] == ["queue_events have no effect without stream: true"]


def test_every_picture_of_a_stream_completes_once_when_it_is_there_and_usage_adds_up(client: TestClient) -> None:
    response = client.post(GENERATIONS, json={"prompt": "a fox", "stream": True, "n": 3, "seed": 7})

    events = [data for _, data in events_of(response)]
    assert [(data["image_index"], data["seed"]) for data in events] == [(2, 9), (0, 7), (1, 8)]
    assert [data["usage"]["input_tokens"] for data in events] == [5, 0, 0]


def test_the_accept_header_alone_asks_openais_route_for_a_stream(client: TestClient) -> None:
    response = client.post(GENERATIONS, json={"prompt": "a fox"}, headers=ACCEPT)

    assert [name for name, _ in events_of(response)] == ["image_generation.completed"]


@pytest.mark.parametrize("number", [-1, 4])
def test_a_number_of_partial_pictures_beyond_three_is_refused(client: TestClient, number: int) -> None:
    response = client.post(GENERATIONS, json={"prompt": "a fox", "stream": True, "partial_images": number})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "partial_images"


def test_partial_pictures_without_a_stream_are_not_made_and_the_answer_says_so(
    client: TestClient, dispatcher: FakeDispatcher
) -> None:
    response = client.post(GENERATIONS, json={"prompt": "a fox", "partial_images": 2})

    assert response.json()["warnings"] == ["partial_images have no effect without stream: true"]
    assert dispatcher.requests[0].num_previews == 0


@pytest.mark.parametrize("path", ["/", "/predict", "/score"])
def test_hugging_faces_routes_tell_steps_previews_and_the_picture(client: TestClient, path: str) -> None:
    response = client.post(path, json={"inputs": "a fox", "parameters": {"seed": 7}}, headers=ACCEPT)

    events = events_of(response)
    assert [name for name, _ in events] == [*["step", "preview"] * 3, "step", "completed"]
    assert events[0][1] == {"index": 1, "of": 4}
    assert opened(events[1][1]["image"]).size == (64, 64)
    completed = events[-1][1]
    assert opened(completed["image"]).format == "PNG"
    assert (completed["seed"], completed["content_type"]) == (7, "image/png")
    assert completed["parameters"]["num_inference_steps"] == 4


def test_previews_can_be_turned_off(client: TestClient) -> None:
    response = client.post("/", json={"inputs": "a fox", "parameters": {"num_previews": 0}}, headers=ACCEPT)

    assert "preview" not in dict(events_of(response))


def test_a_full_queue_is_a_429_and_no_stream(client: TestClient, dispatcher: FakeDispatcher) -> None:
    dispatcher.error = Overloaded("all is taken", retry_after_s=3)

    response = client.post(GENERATIONS, json={"prompt": "a fox", "stream": True})

    assert (response.status_code, response.headers["retry-after"]) == (429, "3")


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (GENERATIONS, {"prompt": "a fox", "stream": True}, ("error", "message")),
        ("/score", {"inputs": "a fox"}, ("error", "message")),
        ("/", {"inputs": "a fox"}, ("error",)),
    ],
)
def test_what_fails_in_a_stream_is_its_last_event_in_the_dialects_words(
    client: TestClient, dispatcher: FakeDispatcher, path: str, body: dict[str, Any], message: tuple[str, ...]
) -> None:
    dispatcher.error = EngineFailure("the model could not")

    response = client.post(path, json=body, headers=ACCEPT)

    name, data = events_of(response)[-1]
    for key in message:
        data = data[key]
    assert (response.status_code, name, data) == (200, "error", "the model could not")


async def wait_for_ever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


@pytest.mark.anyio
async def test_a_client_that_takes_nothing_does_not_keep_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "STALL_TIMEOUT_S", 0.01)
    has_place = True

    async def steps() -> AsyncGenerator[Event, None]:
        nonlocal has_place
        try:
            for index in itertools.count(1):
                yield Step(0, index, 50)
        finally:
            has_place = False

    async def take_the_first_frame(message: Message) -> None:
        if b'"index": 2' in message.get("body", b""):
            await wait_for_ever()

    scope = {"type": "http", "headers": []}
    stream = EventStream(Request(scope), steps(), event_renderer(fake_request()))
    async with asyncio.timeout(DEADLINE_S):
        await stream(scope, receive=wait_for_ever, send=take_the_first_frame)

    assert not has_place


@pytest.mark.anyio
async def test_a_large_frame_is_sent_in_parts_so_that_a_slow_client_counts_as_there() -> None:
    picture = bytes(range(256)) * 1000
    bodies: list[bytes] = []

    async def one_step() -> AsyncGenerator[Event, None]:
        yield Step(0, 1, 1)

    async def take(message: Message) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])

    scope = {"type": "http", "headers": []}
    await EventStream(Request(scope), one_step(), lambda _: [picture])(scope, receive=wait_for_ever, send=take)

    assert b"".join(bodies) == picture
    assert max(map(len, bodies)) <= event_stream.PART_BYTES
