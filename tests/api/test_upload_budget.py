"""Many uploads at once: what they may take of the memory, and what the next one is told."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Iterator

import httpx
import pytest

from safelight.api.http.bodies.upload_budget import NUM_DECODERS, UploadBudget
from safelight.errors import Overloaded
from tests.fakes import until
from tests.live_server import LiveServer, live_server
from tests.unit.picture.incoming.test_uploads import encoded, left_red
from tests.waiting import eventually

PICTURE = encoded(left_red((512, 512)), "JPEG", quality=95)
EDITS = "/v1/images/edits"


@pytest.fixture
def server() -> Iterator[LiveServer]:
    """One upload fills it."""
    with live_server(max_body_bytes=1024, max_held_upload_bytes=2048, online_endpoints=False) as server:
        assert len(PICTURE) > 2048
        yield server


def edit(server: LiveServer) -> httpx.Response:
    return httpx.post(server.url + EDITS, data={"prompt": "a fox"}, files={"image": PICTURE}, timeout=60)


def image_to_image(server: LiveServer) -> httpx.Response:
    return httpx.post(server.url, content=PICTURE, timeout=60)


def begin(server: LiveServer) -> http.client.HTTPConnection:
    """An upload whose last byte does not come yet."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Type", "image/jpeg")
    connection.putheader("Content-Length", str(len(PICTURE)))
    connection.endheaders(PICTURE[:-1])
    return connection


def test_an_upload_too_many_gets_429_in_its_dialect_and_prompts_go_on(server: LiveServer) -> None:
    slow = begin(server)
    eventually(lambda: edit(server).status_code == 429)

    refused = [edit(server), image_to_image(server)]
    prompt = httpx.post(server.url, json={"inputs": "a fox"}, timeout=60)

    assert [(each.status_code, each.headers["retry-after"]) for each in refused] == [(429, "1")] * 2
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert refused[1].json()["error"].startswith("uploads of")
    assert prompt.status_code == 200
    slow.send(PICTURE[-1:])
    assert slow.getresponse().status == 200
    slow.close()
    assert [edit(server).status_code, image_to_image(server).status_code] == [200, 200]


def test_an_upload_whose_client_leaves_gives_its_bytes_back(server: LiveServer) -> None:
    slow = begin(server)
    eventually(lambda: edit(server).status_code == 429)

    slow.close()

    eventually(lambda: edit(server).status_code == 200)


def test_what_is_refused_or_broken_holds_nothing(server: LiveServer) -> None:
    for content in (PICTURE[:1500], PICTURE[:1500], b"\xff\xd8\xff" + bytes(4000)):
        assert httpx.post(server.url, content=content, timeout=60).status_code == 400

    assert image_to_image(server).status_code == 200


def test_one_upload_is_always_read_however_small_the_budget() -> None:
    budget = UploadBudget(10)

    with budget.hold(100), pytest.raises(Overloaded), budget.hold(1):
        pass
    with budget.hold(100):
        pass


@pytest.mark.anyio
async def test_no_more_images_are_decoded_at_once_than_there_are_decoders() -> None:
    budget, go = UploadBudget(10), threading.Event()
    running: list[int] = []
    most: list[int] = []

    def decode(number: int) -> int:
        running.append(number)
        most.append(len(running))
        go.wait(60)
        running.remove(number)
        return number

    work = [asyncio.create_task(budget.decode(decode, number)) for number in range(5)]
    await until(lambda: len(running) == NUM_DECODERS)
    go.set()

    assert sorted(await asyncio.gather(*work)) == [0, 1, 2, 3, 4]
    assert max(most) == NUM_DECODERS
