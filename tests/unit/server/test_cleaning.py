"""The image store is cleaned while the server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest

from safelight.image_store import ImageStore
from safelight.server.cleaning import kept_clean
from tests.fakes import until

PAST = 1_000_000_000.0


def files_in(folder: Path) -> int:
    return len(list(folder.iterdir()))


def test_what_has_ended_goes_again_and_again(tmp_path: Path) -> None:
    async def run() -> None:
        past = ImageStore(str(tmp_path / "images"), tmp_path / "key", clock=lambda: PAST)
        past.keep(b"picture", "png")
        async with kept_clean(ImageStore(str(tmp_path / "images"), tmp_path / "key"), interval_s=0.001):
            await until(lambda: files_in(tmp_path / "images") == 0)
            past.keep(b"picture", "png")
            await until(lambda: files_in(tmp_path / "images") == 0)

    asyncio.run(run())


def test_a_store_that_cannot_be_cleaned_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    def fail() -> NoReturn:
        nonlocal attempts
        attempts += 1
        raise OSError("no way there")

    async def run() -> None:
        store = ImageStore(str(tmp_path / "images"), tmp_path / "key")
        monkeypatch.setattr(store, "clean_up", fail)
        async with kept_clean(store, interval_s=0.001):
            await until(lambda: attempts > 1)

    asyncio.run(run())
