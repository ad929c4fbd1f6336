"""The dearest bodies of each limit: whatever they cost, the server answers others meanwhile.

Nothing is measured by a clock: between the last byte of a body and its answer, `/health/live` is answered too.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from safelight.api.http.bodies.strict_json import MAX_MARKS, MAX_NAMES
from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher
from tests.fakes import fake_replicas

pytestmark = pytest.mark.anyio

BODY, UPLOAD = Settings().max_body_bytes, Settings().max_upload_bytes
PART = 64 * 1024
OPENAI, EDITS, SCORE = "/v1/images/generations", "/v1/images/edits", "/score"
CONNECTION = (
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/connections/abc"
)
JSON, FORM = "application/json", "multipart/form-data; boundary=b"
PNG = b"data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True)
class Worst:
    path: str
    content: bytes = field(repr=False)
    says: bytes
    status: int = 400
    content_type: str = JSON
    method: str = "POST"


def filled(start: bytes, unit: bytes, end: bytes, num_bytes: int) -> bytes:
    return start + unit * ((num_bytes - len(start) - len(end)) // len(unit)) + end


def names(num_bytes: int) -> bytes:
    """`"0":1,"1":1,...`, none of them twice."""
    found, left = [], num_bytes
    for number in itertools.count():
        found.append(b'"%d":1' % number)
        if (left := left - len(found[-1]) - 1) < 0:
            return b",".join(found[:-1])
    raise AssertionError


def objects_at_both_limits() -> bytes:
    """As many objects of as many names as are read; the last one has its last name twice."""
    each = b"{" + b",".join(b'"%d":1' % number for number in range(MAX_NAMES - 2)) + b"}"
    return b'{"prompt":[' + (each + b",") * (MAX_MARKS // MAX_NAMES - 1) + b'{"a":1,"a":1}]}'


def form_of_lists() -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    fields = (b"n", b"stream", b"seed", b"lora", b"width", b"height", b"strength", b"loras")
    value = filled(b"[", b"[],", b"1]", BODY // len(fields) - 1)
    return b"".join(head % name + value + b"\r\n" for name in fields) + b"--b--\r\n"


def form_of_parameters() -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="a"' + b";" * 3900 + b"\r\n\r\n"
    return (head + b"1\r\n") * 60 + b"--b--\r\n"


BODIES = {
    "many names, the last one twice": Worst(OPENAI, b"{%b,%b}" % (names(150_000), b'"0":1'), b"at most 256 are read"),
    "names that are no parameters": Worst(OPENAI, b"{%b}" % names(BODY // 2 - 2), b"at most 256 are read"),
    "names in inputs and in parameters": Worst(
        SCORE, b'{"inputs":{"prompt":"a",%b},"parameters":{%b}}' % ((names(BODY // 8),) * 2), b"at most 256 are read"
    ),
    "objects at both limits": Worst(OPENAI, objects_at_both_limits(), b"given more than once"),
    "lists": Worst(OPENAI, filled(b'{"prompt":[', b"[],", b"1]}", BODY), b"more than 65536 commas"),
    "wrong loras": Worst(OPENAI, filled(b'{"prompt":"a","loras":[', b"1,", b"1]}", 120_000), b"at most 8 are read"),
    "loras of nothing": Worst(
        OPENAI, filled(b'{"prompt":"a","loras":[', b"{},", b"{}]}", 60_000), b"at most 8 are read"
    ),
    "the longest integers": Worst(OPENAI, filled(b'{"prompt":[', b"9" * 4000 + b",", b"1,]}", BODY), b"is not JSON"),
    "an edit of one image": Worst(
        EDITS,
        filled(b'{"prompt":"a","images":[{"image_url":"' + PNG, b"AAAA", b'"}],"n":1,"n":1}', UPLOAD),
        b"more than once",
    ),
    "an edit of numbers": Worst(
        EDITS, filled(b'{"prompt":"a","images":[', b"1,", b"1]}", UPLOAD), b"more than 65536 commas"
    ),
    "an edit of escapes": Worst(
        EDITS, filled(b'{"prompt":"', b"\\u2041", b'","n":1,"n":1}', UPLOAD), b"more than once"
    ),
    "an edit of blanks": Worst(EDITS, b" " * UPLOAD, b"the body is empty"),
    "an image and then lists": Worst(
        "/", filled(b'{"inputs":"' + PNG + b'","parameters":[', b"[],", b"1]}", UPLOAD), b"more than 65536 commas"
    ),
    "a form of lists": Worst(EDITS, form_of_lists(), b"image is missing", content_type=FORM),
    "a long name around many": Worst(
        CONNECTION, b'{"%b":{%b}}' % (b"x" * 200_000, names(100_000)), b"at most 256 are read", method="PUT"
    ),
}


FORMS = {
    "parts with many parameters": Worst(EDITS, form_of_parameters(), b"more than 16 parameters", content_type=FORM),
    "a type with many parameters": Worst(
        EDITS, b"--b--\r\n", b"more than 16 parameters", content_type=FORM + ";" * 30_000
    ),
    "a type with a long parameter": Worst(
        EDITS, b"--b--\r\n", b"more than 16 parameters", content_type=f'{FORM};a="' + ";" * 30_000
    ),
    "an odd charset": Worst(
        EDITS,
        b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na-' + b"b" * 100_000 + b"\r\n--b--\r\n",
        b"send the form in UTF-8",
        content_type=FORM + "; charset=punycode",
    ),
}


@dataclass
class Server:
    """The application without a socket, and who may change its connections."""

    app: FastAPI
    admin_token: str

    async def answer(self, worst: Worst) -> tuple[int, bytes, int]:
        """Status and body, and how often `/health/live` was answered after the last byte had come."""
        parts = [worst.content[start : start + PART] for start in range(0, len(worst.content), PART)]
        has_come, num_lives = False, 0

        async def receive() -> dict[str, Any]:
            nonlocal has_come
            await asyncio.sleep(0)
            part, has_come = parts.pop(0), not parts
            return {"type": "http.request", "body": part, "more_body": not has_come}

        asking = asyncio.ensure_future(self._call(worst.method, worst.path, worst.content_type, receive))
        while not asking.done():
            status, _ = await self._call("GET", "/health/live", JSON, receive)
            assert status == 200
            num_lives += has_come
            await asyncio.sleep(0)
        return *asking.result(), num_lives

    async def _call(self, method: str, path: str, content_type: str, receive: Any) -> tuple[int, bytes]:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = {"content-type": content_type, "authorization": f"Bearer {self.admin_token}", "host": "127.0.0.1"}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "http_version": "1.1",
        }
        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture(scope="module")
def server(shared: tuple[TestClient, FakeDispatcher], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    online = OnlineEndpoints(settings, fake_replicas())
    yield Server(create_app(settings, shared[1], online), online.plane.admin_token)  # type: ignore[arg-type]
    asyncio.run(online.stop())


@pytest.mark.parametrize("worst", BODIES.values(), ids=BODIES)
async def test_the_server_is_alive_between_the_last_byte_of_a_body_and_its_answer(
    server: Server, dispatcher: FakeDispatcher, worst: Worst
) -> None:
    status, content, num_lives = await server.answer(worst)

    assert num_lives > 0
    assert (status, worst.says in content) == (worst.status, True), content[:500]
    assert len(content) < 4000
    assert dispatcher.requests == []


@pytest.mark.parametrize("worst", FORMS.values(), ids=FORMS)
async def test_a_form_that_is_dear_to_read_is_refused_before_it_is(
    server: Server, dispatcher: FakeDispatcher, worst: Worst
) -> None:
    status, content, _ = await server.answer(worst)

    assert (status, worst.says in content) == (400, True), content[:500]
    assert dispatcher.requests == []


async def test_a_form_that_comes_all_at_once_lets_others_have_their_turn(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.PART", BODY)
    content = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + b"\r\n-" * 100_000 + b"\r\n--b--\r\n"

    status, _, num_lives = await server.answer(Worst(EDITS, content, b"", content_type=FORM))

    assert status == 400  # there is no image
    assert num_lives >= len(content) // (16 * 1024)
