"""The model card's snippet loads sprite's folder in plain diffusers, with no code of ours, and draws."""

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.pictures import open_picture

ROOT = Path(__file__).parents[2]
CARD = ROOT / "docs" / "models" / "sprite.md"


def test_the_snippet_of_the_model_card_draws(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", CARD.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "src").symlink_to(ROOT / "src")

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", snippet],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert open_picture(tmp_path / "fox.png").size == (256, 256)
