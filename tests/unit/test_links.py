"""Every link of the docs into the project leads to a file, and to a heading of it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "training").rglob("*.md")]
_CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


@cache
def prose(page: Path) -> str:
    return _CODE.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> list[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    words = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", each).strip().lower() for each in headings]
    return [re.sub(r"[^\w\- ]", "", each).replace(" ", "-") for each in words]


def is_lost(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return True
    return bool(anchor) and anchor not in anchors(target)


def test_every_link_into_the_project_leads_to_a_file_and_a_heading_of_it() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", prose(page))]

    assert len(links) > 100
    assert [f"{page.relative_to(ROOT)}: {link}" for page, link in links if is_lost(page, link)] == []
