"""What goes wrong around the page: servers that break, browsers that refuse, files that lie."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import Page, expect

from tests.bare_server import CLOSE, bare_server
from tests.fakes import FakeDeployment, FakeEngineOptions, Gate
from tests.live_server import LiveServer, live_server
from tests.page.actions import begin, drop, make, sign_in, thumbs
from tests.page.conftest import KEY
from tests.waiting import eventually

OpenPage = Callable[..., Page]
GENERATIONS = "**/v1/images/generations"
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
_EVENT = b'event: image_generation.step\ndata: {"image_index": 0, "step_index": 1, "num_steps": 4}\n\n'
STEP = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (
    len(_EVENT),
    _EVENT,
)
RECIPE = {
    "safelight": "0.1.0", "model": "m", "prompt": "a red ball", "width": 64, "height": 64, "num_inference_steps": 4,
    "scheduler": "FlowMatchEulerDiscreteScheduler", "seed": 7,
}  # fmt: skip


def png(recipe: object = None, size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture; what it says of itself may be anything."""
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    if recipe is not None:
        info.add_text("safelight", json.dumps(recipe))
    Image.new("RGB", size, "green").save(file, "PNG", pnginfo=info)
    return file.getvalue()


@pytest.mark.parametrize("num_made", [0, 1])
def test_an_answer_that_ends_before_its_last_picture_is_a_failure(
    server: LiveServer, open_page: OpenPage, num_made: int
) -> None:
    page = open_page(server.url)
    picture = {
        "b64_json": base64.b64encode(png()).decode(), "output_format": "png", "image_index": 0, "seed": 1,
        "warnings": [], "parameters": RECIPE,
    }  # fmt: skip
    told = f"event: image_generation.completed\ndata: {json.dumps(picture)}\n\n" * num_made
    page.route(GENERATIONS, lambda route: route.fulfill(body=told, content_type="text/event-stream"))

    page.get_by_label("Pictures, as a number").fill("2")
    page.get_by_label("Prompt", exact=True).fill("a red ball")
    page.get_by_role("button", name="Make 2 pictures").click()

    expect(page.get_by_role("alert")).to_have_text(f"The answer ended after {num_made} of 2 pictures.")
    expect(thumbs(page)).to_have_count(num_made)


@pytest.mark.parametrize("answer", [STEP[:-9] + CLOSE, STEP + CLOSE, CLOSE], ids=["in a step", "between", "at once"])
def test_a_server_that_goes_away_in_the_middle_of_a_picture_is_told_and_the_next_is_made_when_it_is_back(
    server: LiveServer, open_page: OpenPage, answer: bytes
) -> None:
    page = open_page(server.url)
    with bare_server(lambda _: answer) as dying:
        page.route(GENERATIONS, lambda route: route.continue_(url=f"{dying.url}/v1/images/generations"))

        begin(page, "a red ball")

        expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    page.unroute(GENERATIONS)
    make(page, "a blue cup")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_who_signs_out_waits_for_no_picture(tmp_path: Path, open_page: OpenPage) -> None:
    gate = Gate(tmp_path / "gate")
    options = FakeEngineOptions(gate=str(gate.path))
    with live_server(FakeDeployment(options=options), api_key=KEY) as server:
        page = open_page(server.url)
        sign_in(page, KEY)
        begin(page, "a red ball")
        gate.allow(2)
        page.get_by_role("img", name="a preview of the picture").wait_for()

        page.get_by_role("button", name="Sign out").click()

        page.get_by_label("Key", exact=True).wait_for()
        eventually(lambda: server.count("safelight_running") == 0)
        gate.allow(1)  # the step that has begun
        eventually(lambda: server.count("safelight_steps_saved_total") > 0)
        gate.open()


def test_a_key_that_ends_in_the_middle_costs_nothing_that_was_written(
    locked_server: LiveServer, open_page: OpenPage
) -> None:
    page = open_page(locked_server.url)
    sign_in(page, KEY)
    refusal = {"error": {"message": "Incorrect API key"}}
    page.route(GENERATIONS, lambda route: route.fulfill(status=401, json=refusal))
    begin(page, "a long prompt that took an hour")
    page.get_by_label("Key", exact=True).wait_for()
    page.unroute(GENERATIONS)

    sign_in(page, KEY)

    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a long prompt that took an hour")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": 429, "headers": {"retry-after": "7"}, "json": {"error": "full"}}, "full (Try again in 7 s.)"),
        ({"status": 502, "content_type": "text/html", "body": HOSTILE}, "The server answered 502."),
        ({"status": 500, "body": HOSTILE, "content_type": "text/plain"}, HOSTILE),
        ({"status": 500, "json": {"error": {"message": HOSTILE, "param": HOSTILE}}}, HOSTILE),
        ({"status": 500, "body": "null"}, "null"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_words(
    server: LiveServer, open_page: OpenPage, answer: dict[str, object], told: str
) -> None:
    page = open_page(server.url)
    page.route(GENERATIONS, lambda route: route.fulfill(**answer))  # type: ignore[arg-type]

    begin(page, "a red ball")

    expect(page.get_by_role("alert")).to_have_text(told)
    assert page.title() == "Safelight"


def test_a_refusal_of_what_is_hidden_is_seen(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    others = {"scheduler": "DDIMScheduler", "loras": [{"name": HOSTILE, "scale": 0.5}]}
    drop(page, "others.png", "image/png", png(RECIPE | others))
    page.get_by_text("Its recipe").click()
    page.locator(".source").get_by_role("button", name="Use these settings").click()
    page.get_by_role("button", name="Remove").click()

    begin(page, "a red ball")
    expect(page.locator(".settings").get_by_role("alert")).to_be_visible()
    page.get_by_label("Scheduler").select_option(index=0)
    begin(page, "a red ball")
    expect(page.get_by_role("group", name="LoRAs").get_by_role("alert")).to_be_visible()
    page.get_by_label(HOSTILE, exact=True).click()  # and it is gone

    make(page, "a red ball")
    assert page.title() == "Safelight"


@pytest.mark.parametrize(
    ("label", "value", "group"), [("Pictures, as a number", "999999999", ""), ("Prompt", "x" * 40_000, "")]
)
def test_a_number_or_a_text_beyond_all_bounds_is_refused_beside_its_field(
    server: LiveServer, open_page: OpenPage, label: str, value: str, group: str
) -> None:
    page = open_page(server.url)
    page.get_by_label("Prompt", exact=True).fill("a red ball")

    page.get_by_label(label, exact=True).fill(value)
    page.locator("form.prompt .primary").click()

    field = page.locator(".field").filter(has=page.get_by_label(label, exact=True))
    expect(field.get_by_role("alert")).to_be_visible()


REFUSE = "Object.defineProperty(window, '%s', { get() { throw new DOMException('denied', 'SecurityError'); } });"


def test_a_browser_that_stores_nothing_makes_pictures_all_the_same(
    locked_server: LiveServer, open_page: OpenPage
) -> None:
    page = open_page("about:blank")
    page.add_init_script(REFUSE % "sessionStorage" + REFUSE % "indexedDB")
    page.goto(locked_server.url)
    expect(page.get_by_label("Keep it until this tab is closed")).to_have_count(0)
    sign_in(page, KEY)

    make(page, "a red ball")

    expect(page.get_by_role("alert")).to_contain_text("The gallery is not kept: denied")
    expect(thumbs(page)).to_have_count(1)
    page.get_by_role("link", name="Server").click()
    expect(page.locator("figure").filter(has_text="Requests")).to_contain_text("running 0")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key", exact=True)).to_be_visible()


def test_a_gallery_without_room_says_so_and_shows_the_picture(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    page.add_init_script(
        "IDBObjectStore.prototype.put = () => { throw new DOMException('no room is left', 'QuotaExceededError'); };"
    )
    page.goto(server.url)

    make(page, "a red ball")

    expect(page.get_by_role("alert")).to_have_text("The gallery is not kept: no room is left")
    expect(page.get_by_role("img", name="a red ball", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("name", "media_type", "content"),
    [
        ("cut.png", "image/png", png()[:60]),
        ("words.jpg", "image/jpeg", b"no picture"),
        ("drawing.svg", "image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title="x"</script></svg>'),
        ("empty.webp", "image/webp", b""),
        (f"{HOSTILE}.png", "image/png", b"no picture"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_picture_is_told_and_takes_nothing_away(
    server: LiveServer, open_page: OpenPage, name: str, media_type: str, content: bytes
) -> None:
    page = open_page(server.url)
    drop(page, "good.png", "image/png", png())
    page.get_by_text("Start from good.png").wait_for()

    drop(page, name, media_type, content)

    expect(page.get_by_role("alert")).to_contain_text(f"{name} is no picture")
    expect(page.get_by_text("Start from good.png")).to_be_visible()
    assert page.title() == "Safelight"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (RECIPE | {"loras": [None, "x", {"name": {}, "scale": 1}, {"name": "film", "scale": 1}]}, "film 1"),
        (RECIPE | {"loras": {"length": 3}, "prompt": {"a": 1}, "negative_prompt": [HOSTILE], "strength": "x"}, "Seed"),
        (RECIPE | {"prompt": HOSTILE, "model": HOSTILE}, HOSTILE),
        (RECIPE | {"scheduler": None}, None),
        (RECIPE | {"width": "64"}, None),
        (RECIPE | {"seed": {"toString": 1}}, None),
        ([1], None),
        (7, None),
    ],
)  # fmt: skip
def test_a_recipe_that_anybody_may_have_written_breaks_nothing(
    server: LiveServer, open_page: OpenPage, said: object, told: str | None
) -> None:
    page = open_page(server.url)

    drop(page, "odd.png", "image/png", png(said))

    page.get_by_text("Start from odd.png").wait_for()
    if told is None:
        expect(page.get_by_text("It carries no recipe.")).to_be_visible()
    else:
        page.get_by_text("Its recipe").click()
        expect(page.locator(".source .recipe")).to_contain_text(told)
        page.locator(".source").get_by_role("button", name="Use these settings").click()
        expect(page.get_by_label("Seed", exact=True)).to_have_value("7")
    assert page.title() == "Safelight"


def test_a_clipboard_that_is_denied_is_told(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    page.add_init_script("document.execCommand = () => false; delete Navigator.prototype.clipboard;")
    page.goto(server.url)
    page.get_by_text("Copy as code").click()

    page.get_by_role("button", name="Copy", exact=True).click()

    expect(page.get_by_role("button", name="Not copied: select the text")).to_be_focused()


def test_what_is_no_key_is_refused_as_such(locked_server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(locked_server.url)

    sign_in(page, "ключ")

    expect(page.get_by_role("alert")).to_contain_text("letters, digits and signs of ASCII")
    sign_in(page, KEY)
    page.get_by_label("Prompt", exact=True).wait_for()


def test_a_server_that_is_slow_is_not_asked_twice_at_once(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    page.clock.install()
    asked: list[str] = []
    for path in ("metrics", "health/ready"):
        page.route(f"**/{path}", lambda route: asked.append(route.request.url))  # and never answered

    page.goto(f"{server.url}/app/#server")
    page.get_by_text("The last ten minutes").wait_for()
    eventually(lambda: (page.wait_for_timeout(20), len(asked) == 2)[1])
    for _ in range(4):
        page.clock.fast_forward(10_000)
    page.evaluate("1")  # what the clock has set off has been sent

    assert len(asked) == 2
