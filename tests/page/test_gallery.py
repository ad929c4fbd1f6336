"""Pictures that stay in the browser, however many and in however many tabs, and what they were made from."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from safelight.picture.files import encode
from tests.live_server import LiveServer
from tests.page.actions import drop, make, recipe, thumbs
from tests.recipes import RECIPE
from tests.waiting import eventually

OpenPage = Callable[..., Page]
MANY = 500
KEEP_MANY = """async (count) => {
    const canvas = new OffscreenCanvas(64, 64);
    canvas.getContext("2d").fillRect(0, 0, 64, 64);
    const blob = await canvas.convertToBlob();
    const opened = indexedDB.open("safelight", 1);
    const database = await new Promise((resolve) => (opened.onsuccess = () => resolve(opened.result)));
    const writing = database.transaction("pictures", "readwrite");
    for (let index = 0; index < count; index++) {
        const recipe = { prompt: `number ${index}`, seed: index, width: 64, height: 64, scheduler: "x" };
        writing.objectStore("pictures").put({ id: `many-${index}`, blob, recipe, warnings: [], madeAt: index });
    }
    await new Promise((resolve) => (writing.oncomplete = resolve));
    database.close();
}"""


def test_of_many_pictures_those_are_decoded_that_are_in_sight(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    make(page, "a red ball")
    page.evaluate(KEEP_MANY, MANY)
    page.reload()

    expect(thumbs(page)).to_have_count(MANY + 1)

    decoded = "images => images.filter(each => each.naturalWidth > 0).length"
    eventually(lambda: thumbs(page).evaluate_all(decoded) > 0)
    assert thumbs(page).evaluate_all(decoded) < MANY
    thumbs(page).last.scroll_into_view_if_needed()
    expect(thumbs(page).last).to_have_js_property("naturalWidth", 64)


def test_tabs_tell_each_other_what_they_keep_and_delete(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    other = page.context.new_page()
    other.goto(server.url)
    other.get_by_label("Prompt", exact=True).wait_for()

    make(page, "a red ball")
    expect(thumbs(other)).to_have_count(1)
    make(other, "a blue cup")
    expect(thumbs(page)).to_have_count(2)
    thumbs(other).last.click()
    other.get_by_role("button", name="Delete").click()

    expect(thumbs(page)).to_have_count(1)
    expect(page.get_by_label("Compare a blue cup")).to_have_count(1)


def test_a_picture_varies_from_what_it_was_made_from_whatever_is_open(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    make(page, "a red ball")
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("application", name="The picture to change").click()
    with page.expect_request("**/v1/images/edits") as first:
        page.get_by_role("button", name="Change the picture").click()
    page.get_by_text("1 picture in").wait_for()

    thumbs(page).last.click()  # the one that was made from nothing
    with page.expect_request("**/v1/images/generations"):
        page.get_by_role("button", name="Vary the seed").click()
    page.get_by_text("1 picture in").wait_for()
    assert "Strength" not in recipe(page)
    page.reload()
    thumbs(page).nth(1).click()  # the one that was changed
    with page.expect_request("**/v1/images/edits") as again:
        page.get_by_role("button", name="Vary the seed").click()
    page.get_by_text("1 picture in").wait_for()

    before, after = first.value.post_data_json, again.value.post_data_json
    assert [after[name] for name in ("images", "mask", "strength")] == [
        before[name] for name in ("images", "mask", "strength")
    ]
    assert recipe(page)["Strength"] == "0.6"


def test_a_large_webp_carries_its_recipe_behind_its_pixels(server: LiveServer, open_page: OpenPage) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    content = encode(noise, image_format="webp", image_quality=100, recipe=RECIPE)
    assert len(content) > 250_000
    page = open_page(server.url)

    drop(page, "large.webp", "image/webp", content)

    page.get_by_text("Its recipe").click()
    expect(page.locator(".source .recipe")).to_contain_text(str(RECIPE.prompt))


def test_a_picture_is_changed_in_its_own_shape(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    for size, width, height in (((128, 96), "128", "96"), ((4000, 2000), "96", "48")):
        picture = io.BytesIO()
        Image.new("RGB", size, "green").save(picture, "PNG")

        drop(page, f"{width}.png", "image/png", picture.getvalue())
        page.get_by_text(f"Start from {width}.png").wait_for()

        expect(page.get_by_label("Width in pixels")).to_have_value(width)
        expect(page.get_by_label("Height in pixels")).to_have_value(height)


def test_a_seed_that_is_drawn_is_the_one_that_is_used(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)

    page.get_by_role("button", name="Draw").click()
    seed = page.get_by_label("Seed", exact=True).input_value()
    make(page, "a red ball")

    assert recipe(page)["Seed"] == seed
