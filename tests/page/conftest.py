"""A real Chromium, Debian's, with a page of its own for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from safelight.model.spec import LoraFile
from tests.fakes import FAKE_SPEC, FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server

CHROMIUM = shutil.which("chromium")
KEY = "the-key-of-the-page"
WEB = Path(__file__).parents[2] / "web"


def lacking(what: str) -> None:
    """Leaves a test out by name; in CI none is left out."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what}; CONTRIBUTING.md says how to get it")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a module: a running Playwright has an event loop that other modules' `asyncio.run` would trip over."""
    if CHROMIUM is None:
        lacking("the package chromium is missing")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """A page at a URL, in a browser without a past. What goes wrong in its scripts fails the test."""
    contexts, errors = [], []

    def open_(url: str, **options: object) -> Page:
        context = browser.new_context(ignore_https_errors=True, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Policy" in message.text else None)
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server() as server:
        yield server


@pytest.fixture(scope="module")
def locked_server() -> Iterator[LiveServer]:
    with live_server(api_key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def server_with_loras() -> Iterator[LiveServer]:
    """Behind a key, with two that its engine only counts."""
    loras = tuple(LoraFile(name=name, file=f"/nowhere/{name}.safetensors", scale=0.8) for name in ("film", "comic"))
    with live_server(FakeDeployment(spec=replace(FAKE_SPEC, loras=loras)), api_key=KEY) as server:
        yield server


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[LiveServer, Gate]]:
    """A server whose steps wait until the gate lets them pass."""
    gate = Gate(tmp_path / "gate")
    with live_server(FakeDeployment(options=FakeEngineOptions(gate=str(gate.path)))) as server:
        yield server, gate
        gate.open()
