"""`python -m tests.second_family.replica --fd N`: a replica whose registry has one line more."""

from __future__ import annotations

from safelight.model.families import registry
from safelight.serving.replica import process
from tests.second_family.layout import PLAIN


def main() -> None:
    registry.LAYOUTS = (*registry.LAYOUTS, PLAIN)
    process.main()


if __name__ == "__main__":
    main()
