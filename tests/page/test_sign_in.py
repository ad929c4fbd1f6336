"""The key: asked for where the server has one, and kept nowhere that was not asked for."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.live_server import LiveServer
from tests.page.actions import make, sign_in
from tests.page.conftest import KEY

OpenPage = Callable[..., Page]


def test_a_wrong_key_is_refused_and_the_right_one_opens(locked_server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(locked_server.url)

    sign_in(page, "wrong")

    expect(page.get_by_role("alert")).to_contain_text("Incorrect API key")
    sign_in(page, KEY)
    make(page, "a red ball")
    stored = page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])")
    assert KEY not in stored
    page.reload()
    expect(page.get_by_label("Key", exact=True)).to_be_visible()


def test_a_kept_key_lasts_until_its_owner_signs_out(locked_server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(locked_server.url)
    sign_in(page, KEY, is_kept=True)
    page.get_by_label("Prompt", exact=True).wait_for()

    page.reload()

    page.get_by_label("Prompt", exact=True).wait_for()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key", exact=True)).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
