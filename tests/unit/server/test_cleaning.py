"""The image store is cleaned while the server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest

from safelight.picture.links import ImageStore
from safelight.server.cleaning import kept_clean
from tests.fakes import until

PAST = 1_000_000_000.0


def files_in(folder: Path) -> int:
    return len(list(folder.iterdir()))


def test_what_has_ended_goes_again_and_again(tmp_path: Path) -> None:
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"

    def put_what_has_ended() -> None:
        """At once: the cleaning would remove what has ended while it is still being written."""
        name = ImageStore(str(elsewhere), tmp_path / "key", clock=lambda: PAST).keep(b"picture", "png").split("?")[0]
        (elsewhere / name).rename(images / name)

    async def run() -> None:
        images.mkdir()
        put_what_has_ended()
        async with kept_clean(ImageStore(str(images), tmp_path / "key"), interval_s=0.001):
            await until(lambda: files_in(images) == 0)
            put_what_has_ended()
            await until(lambda: files_in(images) == 0)

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
