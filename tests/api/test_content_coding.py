"""Compressed request bodies: decoded within the limits, or refused by the coding's name; never taken as plain."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient

from safelight.api.http.bodies.body import declared_bytes
from tests.api.fake_dispatcher import FakeDispatcher
from tests.unit.picture.incoming.test_uploads import encoded, left_red

BODY = json.dumps({"prompt": "a fox", "seed": 7}).encode()
FORM = (
    b'--x\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na fox\r\n'
    b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n%s\r\n--x--\r\n'
)


def raw_deflate(content: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip by its old name, in capitals": ("X-GZIP", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "deflate without zlib's header, as some send it": ("deflate", raw_deflate),
    "none": ("identity", bytes),
    "none, and gzip": ("identity, gzip", gzip.compress),
}


def post(client: TestClient, path: str, content: bytes, coding: str, **headers: str) -> Any:
    return client.post(path, content=content, headers={"content-encoding": coding, **headers})


@pytest.mark.parametrize(("coding", "compress"), CODINGS.values(), ids=CODINGS)
@pytest.mark.parametrize("path", ["/v1/images/generations", "/", "/score", "/openai/deployments/tiny/images/edits"])
def test_a_compressed_body_is_the_body(
    client: TestClient, dispatcher: FakeDispatcher, path: str, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    bodies: Mapping[str, tuple[bytes, str]] = {
        "/v1/images/generations": (BODY, "application/json"),
        "/openai/deployments/tiny/images/edits": (FORM % encoded(left_red()), "multipart/form-data; boundary=x"),
    }
    content, media_type = bodies.get(path, (b'{"inputs": "a fox"}', "application/json"))

    response = post(client, path, compress(content), coding, **{"content-type": media_type})

    assert response.status_code == 200, response.text
    assert dispatcher.requests[0].prompt == "a fox"


def test_a_compressed_image_as_the_whole_body_is_an_image(client: TestClient, dispatcher: FakeDispatcher) -> None:
    response = post(client, "/", gzip.compress(encoded(left_red())), "gzip", **{"content-type": "image/png"})

    assert Image.open(io.BytesIO(response.content)).format == "PNG"
    assert dispatcher.requests[0].source is not None


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "aws-chunked", "utf-8"])
@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits", "/", "/score"])
def test_another_coding_is_refused_by_its_name(
    client: TestClient, dispatcher: FakeDispatcher, path: str, coding: str
) -> None:
    response = post(client, path, BODY if path.startswith("/v1") else b'{"inputs": "a"}', coding)

    assert response.status_code == 415
    assert coding in response.text
    assert response.headers["accept-encoding"] == "gzip, deflate"
    assert not dispatcher.requests


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "plain JSON that says gzip": ("gzip", BODY, "is damaged"),
    "gzip that says deflate": ("deflate", gzip.compress(BODY), "is damaged"),
    "cut": ("gzip", gzip.compress(BODY)[:-9], "ends too early"),
    "without its checksum": ("gzip", gzip.compress(BODY)[:-8], "ends too early"),
    "with a wrong checksum": ("gzip", gzip.compress(BODY)[:-8] + b"\0" * 8, "is damaged"),
    "nothing": ("gzip", b"", "ends too early"),
    "with something behind it": ("gzip", gzip.compress(BODY) + b"{}", "goes on after its end"),
    "two of them": ("gzip", gzip.compress(b"{}") * 2, "goes on after its end"),
}


@pytest.mark.parametrize(("coding", "content", "words"), BROKEN.values(), ids=BROKEN)
def test_a_body_that_is_not_what_it_says_is_refused(
    client: TestClient, dispatcher: FakeDispatcher, coding: str, content: bytes, words: str
) -> None:
    response = post(client, "/v1/images/generations", content, coding)

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "Content-Encoding")
    assert words in error["message"]
    assert not dispatcher.requests


@cache
def bomb_of(compress: Callable[[bytes], bytes]) -> bytes:
    """A second of work."""
    return compress(b"{" + b" " * 200_000_000)


@pytest.mark.parametrize(("coding", "compress"), [CODINGS["gzip"], CODINGS["deflate"]])
@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits", "/", "/score"])
def test_a_bomb_meets_the_limit_of_the_body(
    client: TestClient, path: str, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    bomb = bomb_of(compress)

    response = post(client, path, bomb, coding)

    assert len(bomb) < 1_000_000
    assert response.status_code == 413


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits"])
def test_a_body_that_becomes_nothing_ends_at_the_limit_as_well(client: TestClient, path: str) -> None:
    """Blocks that hold no byte, without a length that would be told before."""
    empty_block = b"\0\0\0\xff\xff"
    whole = raw_deflate(BODY)

    def chunks() -> Iterator[bytes]:
        for _ in range(55):
            yield empty_block * 200_000
        yield whole

    headers = {"content-encoding": "deflate", "content-type": "application/json"}
    response = client.post(path, content=chunks(), headers=headers)

    assert response.status_code == 413, response.text


def test_a_compressed_upload_is_held_as_if_it_were_as_large_as_may_be() -> None:
    """What it becomes is not known when it is admitted."""
    headers = [(b"content-length", b"100"), (b"content-encoding", b"gzip")]
    request = Request({"type": "http", "headers": headers})

    assert declared_bytes(request, max_bytes=4096) == 4096
