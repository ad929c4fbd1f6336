"""An empty work folder for the recipe, with the artwork that `make fetch` has fetched."""

import fcntl
import os
from pathlib import Path

import pytest

from tests.fetch import FETCHED, WHY_NOT

OF_THE_RUN = Path(os.environ["SPRITE_WORK"])
"""Where the icons are rendered once for all workers of a run, and processes that they start: eight seconds' work."""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    begin(tmp_path, monkeypatch)
    return tmp_path


def begin(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make `folder` the one that the recipe works in, with the artwork in it. Without artwork the test fails."""
    from training.sprite.data import artwork  # noqa: PLC0415  tests that need no artwork do without resvg

    art = FETCHED / "art"
    if not all((art / short / "package").exists() for short in artwork.PACKAGES):
        why = WHY_NOT.read_text(encoding="utf-8") if WHY_NOT.exists() else "it has not been fetched"
        pytest.fail(f"no artwork for the recipe: {why}\nRun `make fetch` where the npm registry can be reached.", False)
    with (OF_THE_RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (OF_THE_RUN / "art").exists():
            (OF_THE_RUN / "art").symlink_to(art)
        patch.setenv("SPRITE_WORK", str(OF_THE_RUN))
        artwork.icons()
    patch.setenv("SPRITE_WORK", str(folder))
    (folder / "art").symlink_to(art)
