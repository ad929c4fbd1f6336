"""The pictures of the page in the docs: `python -m tests.page.screenshots` serves sprite and takes them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.processes import running_server

DOCS = Path(__file__).parents[2] / "docs"
PROMPTS = (
    "a penguin on the beach",
    "a dragon above a castle at night",
    "three strawberries on a yellow background",
    "a robot left of a sunflower in a meadow",
    "a cat on top of a piano",
    "a fox next to a car in the snow",
)
WIDTH, HEIGHT = 1280, 800
SEED = "7"


def main() -> None:
    with running_server() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, take in (("playground", _playground), ("server", _server)):
            page = _open(browser, server.url, "light" if name == "playground" else "dark")
            take(page)
            path = DOCS / f"page-{name}.png"
            page.screenshot(path=path)
            sys.stdout.write(f"{path.relative_to(DOCS.parent)}\n")
        browser.close()


def _open(browser: Browser, url: str, scheme: str) -> Page:
    page = browser.new_context(color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT}).new_page()  # type: ignore[arg-type]
    page.goto(url)
    return page


def _make(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Make a picture").click()
    page.get_by_text("1 picture in").wait_for()


def _playground(page: Page) -> None:
    page.get_by_label("Seed", exact=True).fill(SEED)
    for prompt in PROMPTS:
        _make(page, prompt)
    page.mouse.move(0, 0)


def _server(page: Page) -> None:
    page.evaluate("location.hash = 'server'")
    page.get_by_text("The last ten minutes").wait_for()
    for prompt in PROMPTS[:3]:
        page.evaluate("location.hash = 'create'")
        page.get_by_label("Pictures, as a number").fill("4")
        page.get_by_label("Prompt", exact=True).fill(prompt)
        page.get_by_role("button", name="Make 4 pictures").click()
        page.evaluate("location.hash = 'server'")
        page.wait_for_timeout(9000)


if __name__ == "__main__":
    main()
