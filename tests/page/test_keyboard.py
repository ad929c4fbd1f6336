"""Without a mouse, and without eyes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import Page, expect

from tests.fakes import Gate
from tests.live_server import LiveServer
from tests.page.actions import make

OpenPage = Callable[..., Page]


def test_who_makes_a_picture_by_keyboard_stays_where_it_is_stopped(
    gated: tuple[LiveServer, Gate], open_page: OpenPage
) -> None:
    server, gate = gated
    page = open_page(server.url)
    page.get_by_label("Prompt", exact=True).fill("a red ball")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Make a picture")).to_be_focused()

    page.keyboard.press("Enter")
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_focused()
    page.keyboard.press("Enter")

    page.get_by_text("Stopped.").wait_for()
    expect(page.get_by_role("button", name="Make a picture")).to_be_focused()
    gate.open()


def test_the_second_click_of_a_double_one_stops_nothing(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.get_by_label("Prompt", exact=True).fill("a red ball")

    page.get_by_role("button", name="Make a picture").dblclick()

    page.get_by_text("1 picture in").wait_for()


def test_a_mask_is_painted_by_keys(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    make(page, "a red ball")
    page.get_by_role("button", name="Edit").click()
    canvas = page.get_by_role("application", name="The picture to change")
    expect(canvas).to_have_js_property("width", 64)
    canvas.focus()

    for key in (*["ArrowLeft"] * 4, "Space", *["ArrowRight"] * 4, "Space", *["Shift+ArrowDown"] * 4):
        page.keyboard.press(key)
    page.get_by_role("button", name="Undo").press("Enter")
    canvas.focus()
    for key in ("Space", *["Shift+ArrowDown"] * 6):
        page.keyboard.press(key)
    page.get_by_label("Prompt", exact=True).fill("a blue cup")
    with page.expect_request("**/v1/images/edits") as sent:
        page.keyboard.press("Enter")

    url = sent.value.post_data_json["mask"]["image_url"]
    mask = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert [mask.getpixel(place)[3] for place in ((20, 32), (32, 50), (50, 10))] == [0, 0, 255]  # type: ignore[index]
    page.get_by_text("1 picture in").wait_for()


def test_what_is_gone_takes_the_focus_nowhere(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    for prompt in ("a red ball", "a blue cup"):
        make(page, prompt)

    page.get_by_role("button", name="Delete").press("Enter")

    expect(page.get_by_role("heading", name="Gallery")).to_be_focused()
