"""An empty work folder for the recipe, with artwork that has been fetched before."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Artwork fetched before is taken from the usual folder."""
    pytest.importorskip("resvg_py", reason="pip install -r training/sprite/requirements.txt")
    pytest.importorskip("sentencepiece", reason="pip install -r training/sprite/requirements.txt")
    from training.sprite import artwork, paths  # noqa: PLC0415  resvg_py may be missing

    fetched = paths.work_folder() / "art"
    monkeypatch.setenv("SPRITE_WORK", str(tmp_path))
    if all((fetched / short / "package").exists() for short in artwork.PACKAGES):
        (tmp_path / "art").symlink_to(fetched)
    elif shutil.which("npm") is None:
        pytest.skip("the recipe fetches its artwork with npm")
    artwork.fetch_artwork()
    return tmp_path
