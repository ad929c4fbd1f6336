"""What the page copies runs as it is, whatever the prompt holds."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.live_server import LiveServer
from tests.page.actions import sign_in
from tests.page.conftest import KEY, lacking

OpenPage = Callable[..., Page]
PROMPT = 'it\'s a "red" $HOME `ball` \\n {x} — ü ${y} %s'
COMMANDS = {
    "curl": ["bash", "-e"],
    "Python (openai)": [sys.executable],
    "Python (huggingface_hub)": [sys.executable],
    "JavaScript": ["node"],
}


def copied(page: Page, language: str) -> str:
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label("Seed", exact=True).fill("41")
    page.get_by_label("Width in pixels").fill("96")
    page.get_by_text("Copy as code").click()
    page.get_by_role("button", name=language, exact=True).click()
    return page.locator(".copy-as pre").inner_text()


@pytest.mark.parametrize("has_key", [False, True])
@pytest.mark.parametrize("language", COMMANDS)
def test_copied_code_makes_the_picture(
    server: LiveServer, locked_server: LiveServer, open_page: OpenPage, tmp_path: Path, language: str, has_key: bool
) -> None:
    if language == "JavaScript" and shutil.which("node") is None:
        lacking("the package nodejs is missing")
    page = open_page((locked_server if has_key else server).url)
    if has_key:
        sign_in(page, KEY)
    script = tmp_path / ("code.mjs" if language == "JavaScript" else "code")
    script.write_text(copied(page, language), encoding="utf-8")
    assert KEY not in script.read_text(encoding="utf-8")

    environment = {**os.environ, "SAFELIGHT_API_KEY": KEY, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [*COMMANDS[language], script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("picture*.png")
    with Image.open(path) as picture:
        assert picture.size == (96, 64)


def test_the_copied_command_has_the_prompt_as_one_word(server: LiveServer, open_page: OpenPage) -> None:
    words = shlex.split(copied(open_page(server.url), "CLI"))

    assert words[:2] == ["safelight", "generate"]
    assert words[-2:] == ["--", PROMPT]
    assert words[words.index("--width") + 1] == "96"
