"""Where the recipe keeps its work: outside the tree, so that training survives a clean checkout."""

import os
from pathlib import Path

PACKAGE_FOLDER = Path(__file__).parents[2] / "src" / "safelight" / "models" / "sprite"


def work_folder() -> Path:
    folder = Path(os.environ.get("SPRITE_WORK", "~/.cache/safelight/sprite")).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
