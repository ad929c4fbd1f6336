"""`make fetch`: what the tests need from registries, fetched once and before them; they themselves reach no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FETCHED = Path(__file__).parents[1] / ".fetched"
WHY_NOT = FETCHED / "why-not.txt"
"""What the registry's client said when it could not be reached."""


def fetch() -> None:
    """The artwork of sprite's recipe, by npm. Raises SystemExit with npm's words."""
    FETCHED.mkdir(exist_ok=True)
    WHY_NOT.unlink(missing_ok=True)
    os.environ["SPRITE_WORK"] = str(FETCHED)
    from training.sprite.data.artwork import fetch_artwork  # noqa: PLC0415  it reads where to

    try:
        fetch_artwork()
    except SystemExit as failure:
        WHY_NOT.write_text(str(failure), encoding="utf-8")
        raise


if __name__ == "__main__":
    fetch()
    sys.stdout.write(f"fetched: {', '.join(sorted(path.name for path in (FETCHED / 'art').iterdir()))}\n")
