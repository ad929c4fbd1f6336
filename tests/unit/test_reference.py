"""The committed pages of docs/reference are what the code says today."""

from __future__ import annotations

import pytest

from docs.reference.generate import FOLDER, cli_page, routes_page, settings_page

REMEDY = "run: .venv/bin/python -m docs.reference.generate"


@pytest.fixture(autouse=True)
def _another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of another width and a home of another user change nothing."""
    monkeypatch.setenv("COLUMNS", "37")
    monkeypatch.setenv("TERMINAL_WIDTH", "37")
    monkeypatch.setenv("HOME", "/nowhere")


def test_the_page_of_commands_is_what_help_says() -> None:
    assert (FOLDER / "cli.md").read_text(encoding="utf-8") == cli_page(), REMEDY


def test_the_page_of_routes_is_what_openapi_says() -> None:
    assert (FOLDER / "routes.md").read_text(encoding="utf-8") == routes_page(), REMEDY


def test_the_page_of_settings_is_what_the_server_reads() -> None:
    assert (FOLDER / "settings.md").read_text(encoding="utf-8") == settings_page(), REMEDY
