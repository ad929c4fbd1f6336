"""What a user does on the page."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

from tests.waiting import eventually


def make(page: Page, prompt: str) -> None:
    """Until its picture is there."""
    begin(page, prompt)
    page.get_by_text("1 picture in").wait_for()


def begin(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Make a picture").click()


def thumbs(page: Page) -> Locator:
    return page.get_by_role("region", name="Gallery").locator(".thumb img")


def recipe(page: Page) -> dict[str, str]:
    """Of the only picture that is shown."""
    rows = page.locator(".stage .recipe > div")
    return {row.locator("dt").inner_text(): row.locator("dd").inner_text() for row in rows.all()}


def sign_in(page: Page, key: str, *, is_kept: bool = False) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    if is_kept:
        page.get_by_label("Keep it until this tab is closed").check()
    page.get_by_role("button", name="Sign in").click()


def drop(page: Page, name: str, media_type: str, content: bytes) -> None:
    """A file on the page, as soon as it says that it takes one."""
    make_transfer = """([name, type, content]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(content)], name, { type }));
        return transfer;
    }"""
    transfer = page.evaluate_handle(make_transfer, [name, media_type, list(content)])
    over = """dataTransfer => {
        const over = new DragEvent("dragover", { dataTransfer, bubbles: true, cancelable: true });
        return !document.body.dispatchEvent(over);
    }"""
    eventually(lambda: bool(page.evaluate(over, transfer)))
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
