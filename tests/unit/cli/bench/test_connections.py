"""What comes over a connection, and what becomes of it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import ssl
import zlib
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import psutil
import pytest

from safelight.cli.bench import connections as bench_connections
from safelight.cli.bench.connections import Connections
from safelight.cli.bench.load import Sample, ask
from safelight.cli.bench.mix import Picture, Shape
from safelight.cli.bench.target import Target, parse_target
from safelight.server.certificates import certificate_files
from safelight.settings import Settings
from tests.bare_server import CLOSE, HANG, PNG, bare_server, json_response, picture, response

KEY = "sk-0123456789abcdefghijklmnopqrstuvwxyz"
PICTURE = Picture(Shape("any"), "a fox", None, 7)
OPENAI = json.dumps({"data": [{"b64_json": base64.b64encode(PNG).decode()}]}).encode()


def samples(target: Target, count: int, *, timeout_s: float = 60) -> list[Sample]:
    """Of requests one after the other."""

    async def asking() -> list[Sample]:
        connections = Connections(target, timeout_s)
        try:
            return [await ask(connections, target, PICTURE, perf_counter()) for _ in range(count)]
        finally:
            connections.close()

    return asyncio.run(asking())


def sample(url: str, *, api_key: str | None = None) -> Sample:
    return samples(parse_target(url, api_key=api_key), 1)[0]


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("X-GZip", gzip.compress), ("deflate", zlib.compress)]
)
@pytest.mark.parametrize(("path", "content"), [("/", PNG), ("/v1", OPENAI)])
def test_an_answer_that_is_packed_though_nobody_asked_is_unpacked(
    coding: str, pack: Callable[[bytes], bytes], path: str, content: bytes
) -> None:
    packed = response("200 OK", pack(content), f"content-encoding: {coding}")
    with bare_server(lambda _: packed) as server:
        found = sample(server.url + path)

    assert found.error is None
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "header", "error", "message"),
    [
        (b"\x1b\x00", "content-encoding: br", "no picture", "content-encoding 'br', which was not asked for"),
        (b"no gzip", "content-encoding: gzip", "no HTTP", "its content is not gzip"),
        (gzip.compress(bytes(3_000_000)), "content-encoding: gzip", "too large", "more than 1000000 bytes"),
        (bytes(3_000_000), "x-nothing: 1", "too large", "more than 1000000 bytes"),
    ],
    ids=["unknown", "broken", "a bomb", "too much"],
)
def test_what_cannot_be_unpacked_is_told(
    body: bytes, header: str, error: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_connections, "MAX_ANSWER_BYTES", 1_000_000)
    with bare_server(lambda _: response("200 OK", body, header)) as server:
        found = sample(server.url)

    assert found.error == error
    assert message in found.message


def test_a_head_of_many_kilobytes_is_read() -> None:
    lines = [f"x-policy-{number}: {'a' * 1_000}" for number in range(100)]
    with bare_server(lambda _: response("200 OK", PNG, *lines)) as server:
        assert sample(server.url).error is None


def test_a_goodbye_to_an_idle_connection_is_no_answer_and_a_408_that_keeps_it_is_one() -> None:
    goodbye = json_response("408 Timeout", {}, "connection: close") + CLOSE
    answers = [picture(0), goodbye, picture(0), json_response("408 Timeout", {"error": "took too long"})]
    with bare_server(answers.__getitem__) as server:
        found = samples(parse_target(server.url), 3)

    assert [each.error for each in found] == [None, None, "408"]
    assert found[2].message == "took too long"


def test_a_request_that_is_given_up_leaves_no_connection_behind(tmp_path: Path) -> None:
    certificate, key = certificate_files(Settings(data_dir=tmp_path))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def left_open(target: Target) -> int:
        connections = Connections(target, timeout_s=0.5)
        errors = [(await ask(connections, target, PICTURE, perf_counter())).error for _ in range(2)]
        assert errors == ["timeout"] * 2
        await asyncio.sleep(0)
        return sum(
            bool(each.raddr) and each.raddr.port == target.port for each in psutil.Process().net_connections("tcp")
        )

    with bare_server(lambda _: HANG, tls=tls) as server:
        assert asyncio.run(left_open(parse_target(server.url, certificate=certificate))) == 0


@pytest.mark.parametrize(
    "answer",
    [
        json_response("401 No", {"error": {"message": "x" * 285 + f" {KEY} is wrong"}}),
        json_response("401 No", {"error": {"code": 1, "key": KEY}}),
        response("403 No", b" " * 1_180 + KEY.encode()),
        response("404 No", f"Cannot POST /score?code={KEY}".encode()),
        response("302 Found", b"", f"location: https://example.org/{'x' * 165}/{KEY}"),
        response("302 Found", b"", f"location: https://example.org/#{KEY}"),
        f"SSH {KEY}\r\n\r\n".encode(),
        b"HTTP/1.1 " + b"x" * 20_000 + KEY.encode() + b"\r\n\r\n",
    ],
    ids=["at the cut", "in JSON", "after spaces", "in a path", "redirected", "in a fragment", "no HTTP", "much"],
)
@pytest.mark.parametrize("is_in_query", [False, True], ids=["header", "query"])
def test_no_part_of_what_was_sent_in_secret_is_told_whoever_repeats_it(answer: bytes, is_in_query: bool) -> None:
    with bare_server(lambda _: answer) as server:
        url = f"{server.url}/score?code={KEY}&api-version=2024-10-21" if is_in_query else server.url
        found = sample(url, api_key=None if is_in_query else KEY)

    assert found.error is not None
    assert not any(KEY[at : at + 6] in found.message for at in range(len(KEY) - 6))
    assert len(found.message) < 400


def test_a_version_in_the_query_is_no_secret() -> None:
    with bare_server(lambda _: json_response("404 No", {"error": "2024-10-21 is not served"})) as server:
        found = sample(f"{server.url}/openai/deployments/flux?api-version=2024-10-21")

    assert found.message == "2024-10-21 is not served"
