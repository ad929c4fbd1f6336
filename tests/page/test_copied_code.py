"""What the page copies runs as it is, whatever the prompt holds."""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from safelight.picture.files import decode
from tests.fakes import DEADLINE_S, FAKE_SPEC, FakeDeployment
from tests.live_server import LiveServer, live_server
from tests.page.actions import make, sign_in
from tests.page.conftest import KEY, lacking

OpenPage = Callable[..., Page]
Pixels = tuple[tuple[int, int], bytes]
PROMPT = 'it\'s a "red" $HOME `ball` \\n {x} — ü ${y} %s'
COMMANDS = {
    "curl": ["bash", "-e"],
    "Python (openai)": [sys.executable],
    "Python (huggingface_hub)": [sys.executable],
    "JavaScript": ["node"],
    "CLI": ["bash", "-e"],
}


SIDE = 128
SEED = 2**63 - 100
"""Beyond what a number of JavaScript's holds."""


def open_code(page: Page, language: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label("Seed", exact=True).fill(str(SEED))
    page.get_by_label("Width in pixels").fill("96")
    page.get_by_text("Copy as code").click()
    page.get_by_role("button", name=language, exact=True).click()


def copied(page: Page, language: str) -> str:
    open_code(page, language)
    return page.locator(".copy-as pre").inner_text()


def run(code: str, language: str, folder: Path) -> Pixels:
    """The only picture that it makes, in a folder that has what it reads."""
    if language == "JavaScript" and shutil.which("node") is None:
        lacking("the package nodejs is missing")
    script = folder / ("code.mjs" if language == "JavaScript" else "code")
    script.write_text(code, encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "SAFELIGHT_API_KEY": KEY, "HF_HUB_OFFLINE": "0", "PATH": path}
    done = subprocess.run(
        [*COMMANDS[language], script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = [*folder.glob("picture*.png"), *folder.glob("pictures/*.png")]
    return pixels(made)


def expected(server: LiveServer, path: str = "generations", **fields: object) -> Pixels:
    """What the API paints: the fake engine's colour tells all parameters, the start and the mask."""
    body = {"prompt": PROMPT, "seed": SEED, "size": "96x64", **fields}
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{server.url}/v1/images/{path}", json=body, headers=headers, timeout=DEADLINE_S).json()
    return pixels(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))


def pixels(file: Path | io.BytesIO) -> Pixels:
    with Image.open(file) as picture:
        return picture.size, picture.convert("RGB").tobytes()


def data_url(path: Path) -> dict[str, str]:
    return {"image_url": f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"}


@pytest.mark.parametrize("has_key", [False, True])
@pytest.mark.parametrize("language", COMMANDS)
def test_copied_code_makes_the_picture(
    server: LiveServer, locked_server: LiveServer, open_page: OpenPage, tmp_path: Path, language: str, has_key: bool
) -> None:
    page = open_page((locked_server if has_key else server).url)
    if has_key:
        sign_in(page, KEY)
    code = copied(page, language)
    assert KEY not in code

    assert run(code, language, tmp_path) == expected(server)


@pytest.mark.parametrize("language", COMMANDS)
def test_copied_code_paints_with_the_loras(
    server_with_loras: LiveServer, open_page: OpenPage, tmp_path: Path, language: str
) -> None:
    page = open_page(server_with_loras.url)
    sign_in(page, KEY)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("film", exact=True).check()
    page.get_by_label("Scale of film, as a number").fill("-0.5")

    painted = run(copied(page, language), language, tmp_path)

    assert painted == expected(server_with_loras, loras=[{"name": "film", "scale": -0.5}])
    assert painted != expected(server_with_loras)


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("language", [each for each in COMMANDS if each != "CLI"])
def test_copied_code_changes_the_picture_with_the_files_that_the_page_saves(
    server_with_loras: LiveServer, open_page: OpenPage, tmp_path: Path, language: str, has_mask: bool
) -> None:
    page = open_page(server_with_loras.url)
    sign_in(page, KEY)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("film", exact=True).check()
    picture = io.BytesIO()
    Image.new("RGB", (96, 64), "green").save(picture, "PNG")
    page.get_by_label("Open a picture").set_input_files(
        {"name": "green.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    )
    canvas = page.get_by_role("application", name="The picture to change")
    expect(canvas).to_have_js_property("width", 96)
    if has_mask:
        canvas.click(position={"x": 20, "y": 20})
    open_code(page, language)
    if has_mask and language == "Python (huggingface_hub)":
        expect(page.locator(".copy-as")).to_contain_text("has no mask")
        return
    for name in ("start.png", "mask.png") if has_mask else ("start.png",):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save {name}").click()
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)

    painted = run(page.locator(".copy-as pre").inner_text(), language, tmp_path)

    fields = {"images": [data_url(tmp_path / "start.png")], "strength": 0.6, "loras": [{"name": "film"}]}
    whole = expected(server_with_loras, "edits", **fields)
    if has_mask:
        assert painted == expected(server_with_loras, "edits", **fields, mask=data_url(tmp_path / "mask.png")) != whole
    else:
        assert painted == whole


def test_the_command_line_is_said_to_change_no_picture(server: LiveServer, open_page: OpenPage) -> None:
    page = open_page(server.url)
    make(page, "a red ball")

    page.get_by_role("button", name="Edit").click()
    open_code(page, "CLI")

    expect(page.locator(".copy-as")).to_contain_text("changes none")
    expect(page.locator(".copy-as pre")).to_have_count(0)


def test_the_copied_command_makes_the_embedded_models_picture_by_itself(open_page: OpenPage, tmp_path: Path) -> None:
    spec = replace(FAKE_SPEC, name="sprite", default_width=SIDE, default_height=SIDE)
    with live_server(FakeDeployment(spec=spec)) as server:
        page = open_page(server.url)
        page.get_by_label("Steps, as a number").fill("2")
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Negative prompt").fill(PROMPT)
        open_code(page, "CLI")
        page.get_by_label("Width in pixels").fill("256")
        code = page.locator(".copy-as pre").inner_text()

    run(code, "CLI", tmp_path)

    made = decode((tmp_path / "picture.png").read_bytes())
    assert made.recipe is not None
    assert made.pixels.shape == (SIDE, 256, 3)
    assert (made.recipe.prompt, made.recipe.negative_prompt, made.recipe.seed) == (PROMPT, PROMPT, SEED)
    assert (made.recipe.model, made.recipe.num_inference_steps) == ("sprite", 2)
    assert "--server" not in code
