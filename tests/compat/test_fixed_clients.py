"""Clients whose model and size are fixed: what the source of each sends, field by field, as `docs/clients.md` says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.compat.conftest import KEY
from tests.live_server import LiveServer, live_server

SENT: dict[str, tuple[dict[str, Any], str]] = {
    "LangChain's DallEAPIWrapper": ({"model": "dall-e-2", "size": "1024x1024", "n": 1}, "url"),
    "LlamaIndex": (
        {"model": "dall-e-3", "size": "1024x1024", "n": 1, "quality": "standard", "style": "vivid"}
        | {"response_format": "url"},
        "url",
    ),
    "LlamaIndex, downloading": (
        {"model": "dall-e-3", "size": "1792x1024", "n": 1, "quality": "hd", "style": "natural"}
        | {"response_format": "b64_json"},
        "b64_json",
    ),
    "LibreChat's DALL-E": (
        {"model": "dall-e-3", "size": "1024x1792", "n": 1, "quality": "standard", "style": "vivid"},
        "url",
    ),
    "LibreChat's OpenAI Image": (
        {"model": "gpt-image-1", "size": "auto", "n": 1, "quality": "auto", "background": "auto"}
        | {"output_format": "png"},
        "b64_json",
    ),
    "n8n before 2.2": (
        {"model": "dall-e-3", "size": "1024x1024", "quality": "hd", "style": "vivid", "response_format": "b64_json"},
        "b64_json",
    ),
    "n8n 2.2": ({"model": "gpt-image-1-mini"}, "b64_json"),
    "Open WebUI": ({"model": "dall-e-2", "size": "512x512", "n": 1, "response_format": "b64_json"}, "b64_json"),
    "Open WebUI, gpt-image": ({"model": "gpt-image-1.5", "size": "auto", "n": 1}, "b64_json"),
}
"""Who, what it sends beside the prompt, and where it looks for its picture."""


@pytest.fixture(scope="module")
def fitting() -> Iterator[LiveServer]:
    """A small model that is called by any name and makes of each size what it can."""
    with live_server(api_key=KEY, model_aliases=("*=fake",), fit_sizes=True) as server:
        yield server


@pytest.mark.parametrize("client", SENT)
def test_a_client_with_a_fixed_model_finds_its_picture_where_it_looks(fitting: LiveServer, client: str) -> None:
    body, field = SENT[client]

    answer = httpx.post(
        f"{fitting.url}/v1/images/generations",
        json={"prompt": "a fox"} | body,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0][field]
