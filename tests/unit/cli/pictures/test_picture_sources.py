"""Servers that answer what no server of OpenAI's images API should."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest

from safelight.cli.pictures.picture_sources import Made, ServerSource
from safelight.errors import EngineFailure
from safelight.picture.files import encode
from tests.odd_server import answering

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
PNG, WEBP = (encode(NOISE, image_format=each) for each in ("png", "webp"))
PICTURE, OTHER, HELLO, HALF = (
    {"b64_json": base64.b64encode(content).decode()} for content in (PNG, WEBP, b"hello", PNG[: len(PNG) // 2])
)


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
