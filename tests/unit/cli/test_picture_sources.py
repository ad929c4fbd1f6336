"""Servers that answer what no server of OpenAI's images API should."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from safelight.cli.picture_sources import Made, ServerSource
from safelight.errors import EngineFailure
from safelight.images import encode

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
PNG, WEBP = (encode(NOISE, image_format=each) for each in ("png", "webp"))
PICTURE, OTHER, HELLO, HALF = (
    {"b64_json": base64.b64encode(content).decode()} for content in (PNG, WEBP, b"hello", PNG[: len(PNG) // 2])
)


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """The URL of a server that has one model, and answers every request for pictures with `content`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b'{"data": [{"id": "odd"}]}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._answer(content)

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def make(url: str) -> Made:
    async with ServerSource(url, api_key=None, timeout_s=10) as source:
        return await source.make({"prompt": "a fox"})


@pytest.mark.parametrize(
    "answer",
    [
        b"[" * 100_000,
        b"<html>",
        json.dumps([]).encode(),
        json.dumps({"data": []}).encode(),
        json.dumps({"data": ["x"]}).encode(),
        json.dumps({"data": [{"b64_json": 5}]}).encode(),
        json.dumps({"data": [PICTURE], "warnings": 5}).encode(),
        json.dumps({"data": [PICTURE], "output_format": "/../../x"}).encode(),
        json.dumps({"data": [PICTURE, PICTURE]}).encode(),
        json.dumps({"data": [OTHER]}).encode(),
        json.dumps({"data": [HELLO]}).encode(),
        json.dumps({"data": [HALF]}).encode(),
    ],
)
def test_an_answer_without_pictures_is_an_error_of_the_line(answer: bytes) -> None:
    with answering(answer) as url, pytest.raises(EngineFailure, match="the server's answer has"):
        asyncio.run(make(url))


def test_a_server_that_says_nothing_about_its_pictures_makes_png() -> None:
    answer = {"data": [PICTURE], "output_format": None, "parameters": None, "warnings": None}

    with answering(json.dumps(answer).encode()) as url:
        made = asyncio.run(make(url))

    assert (made.image_format, made.parameters, made.warnings) == ("png", {}, ())
    assert made.images[0].content == PNG
