"""What holds of every view: who can use it, what it weighs, whom it asks."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Response

from tests.live_server import LiveServer
from tests.page.actions import make
from tests.page.conftest import WEB, lacking

OpenPage = Callable[..., Page]
AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
MAX_BYTES = 150 * 1024
MAX_REQUESTS = 8


def violations(page: Page) -> list[str]:
    if not AXE.exists():
        lacking("axe-core has not been fetched (make fetch)")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary'][:200]}" for each in found for node in each["nodes"]
    ]


@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_on_any_view(
    server: LiveServer, locked_server: LiveServer, open_page: OpenPage, colour_scheme: str, width: int
) -> None:
    options = {"color_scheme": colour_scheme, "viewport": {"width": width, "height": 800}}
    page = open_page(server.url, **options)
    page.get_by_label("Prompt", exact=True).wait_for()
    assert violations(page) == []

    page.get_by_text("More", exact=True).click()
    page.get_by_text("Copy as code").click()
    page.get_by_label("Width in pixels").fill("70")
    page.get_by_label("Prompt", exact=True).fill("a red ball")
    page.get_by_role("button", name="Make a picture").click()
    page.get_by_role("alert").wait_for()
    assert violations(page) == []
    page.get_by_label("Width in pixels").fill("64")
    make(page, "a red ball")
    page.get_by_role("button", name="Edit").click()
    assert violations(page) == []

    page.get_by_role("link", name="Server").click()
    page.get_by_text("The last ten minutes").wait_for()
    assert violations(page) == []

    signing_in = open_page(locked_server.url, **options)
    signing_in.get_by_label("Key", exact=True).wait_for()
    assert violations(signing_in) == []


def test_the_page_is_small_and_asks_no_other_host(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))

    page.goto(server.url)
    page.get_by_label("Prompt", exact=True).wait_for()
    first = len(responses)
    page.get_by_role("link", name="Server").click()
    page.get_by_text("The last ten minutes").wait_for()

    assert {urlsplit(each.url).netloc for each in responses} == {f"127.0.0.1:{server.port}"}
    assert first <= MAX_REQUESTS
    built = [each for each in responses if "/app/" in each.url]
    assert sum(each.request.sizes()["responseBodySize"] for each in built) <= MAX_BYTES
