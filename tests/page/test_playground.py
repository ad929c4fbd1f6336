"""Pictures made in a real browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.fakes import FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server
from tests.page.actions import begin, drop, make, recipe, sign_in, thumbs
from tests.page.conftest import KEY
from tests.waiting import eventually

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


def test_a_number_is_typed_in_peace_while_a_picture_develops(
    gated: tuple[LiveServer, Gate], open_page: OpenPage
) -> None:
    server, gate = gated
    page = open_page(server.url)
    begin(page, "a red ball")
    number = page.get_by_label("Pictures, as a number")
    number.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("3")

    gate.allow(2)
    page.get_by_role("img", name="a preview of the picture").wait_for()
    page.keyboard.press("Tab")

    expect(number).to_have_value("3")


def test_stop_stops_the_work(gated: tuple[LiveServer, Gate], open_page: OpenPage) -> None:
    server, gate = gated
    page = open_page(server.url)
    begin(page, "a red ball")
    gate.allow(2)
    page.get_by_role("img", name="a preview of the picture").wait_for()

    page.get_by_role("button", name="Stop").click()

    page.get_by_text("Stopped.").wait_for()
    eventually(lambda: server.count("safelight_running") == 0)
    gate.allow(1)  # the step that has begun
    eventually(lambda: server.count("safelight_steps_saved_total") > 0)
    assert server.count("safelight_steps_run_total") <= 3


def test_who_waits_sees_its_place_in_the_queue(tmp_path: Path, open_page: OpenPage) -> None:
    gate = Gate(tmp_path / "gate")
    options = FakeEngineOptions(gate=str(gate.path))
    with live_server(FakeDeployment(options=options, max_concurrent_requests=1)) as server:
        running, ahead, behind = (open_page(server.url) for _ in range(3))
        begin(running, "a red ball")
        eventually(lambda: server.count("safelight_running") == 1)
        begin(ahead, "a red ball")
        expect(ahead.get_by_text("Waiting, next in the queue")).to_be_visible()
        begin(behind, "a red ball")
        expect(behind.get_by_text("Waiting, number 2 in the queue")).to_be_visible()

        ahead.get_by_role("button", name="Stop").click()

        expect(behind.get_by_text("Waiting, next in the queue")).to_be_visible()
        gate.open()
        behind.get_by_text("1 picture in").wait_for()


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


def test_a_seed_beyond_javascripts_numbers_stays_what_it_is(server: LiveServer, open_page: OpenPage) -> None:
    seed = str(2**53 + 1)
    page = open_page(server.url)
    page.get_by_label("Seed", exact=True).fill(seed)

    with page.expect_request("**/v1/images/generations") as sent:
        make(page, "a red ball")

    assert f'"seed":{seed}' in str(sent.value.post_data)
    assert recipe(page)["Seed"] == seed
    page.reload()
    thumbs(page).click()
    page.get_by_role("button", name="Use these settings").click()
    assert page.get_by_label("Seed", exact=True).input_value() == seed
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    drop(page, "mine.png", "image/png", download.value.path().read_bytes())
    page.get_by_text("Its recipe").click()
    expect(page.locator(".source .recipe")).to_contain_text(seed)


def test_loras_are_chosen_with_their_scales_and_come_back_with_a_pictures_settings(
    server_with_loras: LiveServer, open_page: OpenPage
) -> None:
    page = open_page(server_with_loras.url)
    sign_in(page, KEY)
    page.get_by_text("More", exact=True).click()

    for name in ("film", "comic"):
        page.get_by_label(name, exact=True).check()
    page.get_by_label("Scale of comic", exact=True).fill("1.5")
    make(page, "a red ball")
    assert sorted(recipe(page)["LoRAs"].split(", ")) == ["comic 1.5", "film 0.8"]
    page.get_by_label("film", exact=True).uncheck()
    make(page, "a red ball")
    assert recipe(page)["LoRAs"] == "comic 1.5"

    thumbs(page).last.click()
    page.get_by_role("button", name="Use these settings").click()

    expect(page.get_by_label("film", exact=True)).to_be_checked()
    expect(page.get_by_label("Scale of film, as a number")).to_have_value("0.8")


def test_pictures_stand_side_by_side_with_what_differs(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    for prompt in ("a red ball", "a blue cup"):
        make(page, prompt)

    for name in ("a red ball", "a blue cup"):
        page.get_by_label(f"Compare {name}").check(force=True)

    figures = page.locator(".stage figure")
    expect(figures).to_have_count(2)
    left, right = (figures.nth(index).bounding_box() for index in (0, 1))
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    for index in (0, 1):
        told = figures.nth(index).locator(".recipe dt").all_inner_texts()
        assert told == ["Prompt", "Seed"]


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
    canvas = page.get_by_role("application", name="The picture to change")
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


def test_a_picture_that_is_dropped_shows_its_recipe_and_begins_an_edit(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    make(page, "a red ball")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()

    drop(page, "words.txt", "text/plain", b"no picture")
    expect(page.get_by_role("alert")).to_have_text("words.txt is no picture.")
    drop(page, "made.png", "image/png", download.value.path().read_bytes())

    page.get_by_text("Start from made.png").wait_for()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_text("Its recipe").click()
    expect(page.locator(".source .recipe")).to_contain_text("a red ball")
    page.get_by_label("Prompt", exact=True).fill("a blue cup")
    page.get_by_role("button", name="Change the picture").click()
    expect(page.locator(".stage .recipe")).to_contain_text("Strength")
    assert recipe(page)["Strength"] == "0.6"


def pixels(canvas: Locator) -> str:
    return str(canvas.evaluate("canvas => canvas.toDataURL()"))


def test_undo_takes_the_strokes_back_one_by_one_and_clear_all_of_them(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    make(page, "a red ball")
    page.get_by_role("button", name="Edit").click()
    canvas = page.get_by_role("application", name="The picture to change")
    expect(canvas).to_have_js_property("width", 64)
    undo = page.get_by_role("button", name="Undo")
    seen = [pixels(canvas)]
    for x in (40, 80):
        canvas.click(position={"x": x, "y": 40})
        seen.append(pixels(canvas))
    assert len(set(seen)) == 3

    undo.click()
    assert pixels(canvas) == seen[1]
    undo.click()
    expect(undo).to_be_disabled()
    assert pixels(canvas) == seen[0]
    for x in (40, 80):
        canvas.click(position={"x": x, "y": 40})
    page.get_by_role("button", name="Clear").click()
    assert pixels(canvas) == seen[0]
    with page.expect_request("**/v1/images/edits") as sent:
        page.get_by_role("button", name="Change the picture").click()
    assert "mask" not in sent.value.post_data_json


def test_what_a_prompt_holds_is_text(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\"'&amp;</textarea>"

    make(page, hostile)
    page.reload()
    thumbs(page).click()

    assert recipe(page)["Prompt"] == hostile
    assert page.title() == "Safelight"
