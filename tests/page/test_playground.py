"""Pictures made in a real browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import Page, expect

from tests.fakes import Gate
from tests.live_server import LiveServer, eventually
from tests.page.actions import begin, make, recipe, thumbs

OpenPage = Callable[..., Page]


def test_a_browser_at_the_servers_address_makes_its_first_picture(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)

    make(page, "a red ball")

    picture = page.get_by_role("img", name="a red ball", exact=True)
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 64]
    assert recipe(page)["Prompt"] == "a red ball"


def test_a_picture_develops_before_ones_eyes(gated: tuple[LiveServer, Gate], open_page: OpenPage) -> None:
    server, gate = gated
    page = open_page(server.url)

    begin(page, "a red ball")
    gate.allow(2)

    expect(page.get_by_role("img", name="a preview of the picture")).to_be_visible()
    expect(page.get_by_text("1 picture in")).not_to_be_visible()
    gate.open()
    page.get_by_text("1 picture in").wait_for()


def test_stop_stops_the_work(gated: tuple[LiveServer, Gate], open_page: OpenPage) -> None:
    server, gate = gated
    page = open_page(server.url)
    begin(page, "a red ball")
    gate.allow(2)
    page.get_by_role("img", name="a preview of the picture").wait_for()

    page.get_by_role("button", name="Stop").click()

    page.get_by_text("Stopped.").wait_for()
    gate.allow(1)  # the step that has begun
    eventually(lambda: server.count("safelight_steps_saved_total") > 0)
    assert server.count("safelight_steps_run_total") <= 3
    assert server.count("safelight_running") == 0


def test_a_refusal_stands_beside_its_field(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    width = page.get_by_label("Width in pixels")

    width.fill("70")
    begin(page, "a red ball")

    size = page.get_by_role("group", name="Size")
    expect(size.get_by_role("alert")).to_contain_text("the nearest is 64")
    begin(page, "")
    expect(page.get_by_label("Prompt", exact=True)).to_have_attribute("aria-invalid", "true")


def test_a_warning_stands_beside_its_field(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    page.get_by_text("More", exact=True).click()

    page.get_by_label("Negative prompt").fill("grass")
    make(page, "a red ball")

    expect(page.locator(".settings .note.warning")).to_contain_text("every step costs twice as much")


def test_a_locked_seed_stays_and_an_open_one_is_drawn(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)

    page.get_by_label("Lock").check()
    seeds = []
    for _ in range(2):
        make(page, "a red ball")
        seeds.append(recipe(page)["Seed"])
    page.get_by_label("Lock").uncheck()
    make(page, "a red ball")

    assert seeds[0] == seeds[1]
    assert recipe(page)["Seed"] != seeds[0]


def test_the_gallery_is_there_after_a_reload(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    for prompt in ("a red ball", "a blue cup"):
        make(page, prompt)

    page.reload()

    expect(thumbs(page)).to_have_count(2)
    for name in ("a red ball", "a blue cup"):
        page.get_by_label(f"Compare {name}").check(force=True)
    expect(page.locator(".stage .recipe").first).to_contain_text("a red ball")
    page.get_by_role("button", name="Delete").first.click()
    expect(thumbs(page)).to_have_count(1)
    page.reload()
    expect(thumbs(page)).to_have_count(1)


def test_a_picture_gives_its_settings_back_and_its_seed_varies(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    make(page, "a red ball")
    before = recipe(page)
    page.get_by_label("Prompt", exact=True).fill("something else")

    page.get_by_role("button", name="Vary the seed").click()
    page.get_by_text("1 picture in").wait_for()

    assert page.get_by_label("Prompt", exact=True).input_value() == "a red ball"
    after = recipe(page)
    assert after.pop("Seed") != before.pop("Seed")
    assert after == before


def test_a_picture_is_edited_where_it_is_painted_over(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "green").save(picture, "PNG")
    page.get_by_label("Open a picture").set_input_files(
        {"name": "<b>green</b>.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    )
    expect(page.get_by_text("Start from <b>green</b>.png")).to_be_visible()
    canvas = page.get_by_role("img", name="The picture to change")
    expect(canvas).to_have_js_property("width", 64)
    box = canvas.bounding_box()
    assert box is not None
    for down in (0.25, 0.75):
        page.mouse.move(box["x"] + 2, box["y"] + box["height"] * down)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] * down)
        page.mouse.up()
    page.get_by_role("button", name="Undo").click()  # the lower one

    page.get_by_label("Prompt", exact=True).fill("a red ball")
    with page.expect_request("**/v1/images/edits") as sent:
        page.get_by_role("button", name="Change the picture").click()
    page.get_by_text("1 picture in").wait_for()

    url = sent.value.post_data_json["mask"]["image_url"]
    mask = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert mask.size == (64, 64)
    assert [mask.getpixel((32, y))[3] for y in (16, 48)] == [0, 255]  # type: ignore[index]
    assert recipe(page)["Strength"] == "0.6"


def test_a_picture_that_is_opened_shows_its_recipe(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    for file_format in ("png", "jpeg", "webp"):
        body = {"prompt": 'a "red" {ball} — ü', "seed": 41, "output_format": file_format}
        answer = page.request.post(f"{server.url}/v1/images/generations", data=body).json()
        content = base64.b64decode(answer["data"][0]["b64_json"])
        page.get_by_label("Open a picture").set_input_files(
            {"name": f"made.{file_format}", "mimeType": f"image/{file_format}", "buffer": content}
        )
        page.get_by_text(f"Start from made.{file_format}").wait_for()

        page.get_by_text("Its recipe").click()

        expect(page.locator(".source .recipe")).to_contain_text('a "red" {ball} — ü')
        page.locator(".source").get_by_role("button", name="Use these settings").click()
        assert page.get_by_label("Seed", exact=True).input_value() == "41"
        page.get_by_role("button", name="Remove").click()


def test_what_a_prompt_holds_is_text(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\"'&amp;</textarea>"

    make(page, hostile)
    page.reload()
    thumbs(page).click()

    assert recipe(page)["Prompt"] == hostile
    assert page.title() == "Safelight"
