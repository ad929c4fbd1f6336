"""The entry point `safelight`: the one place where an error becomes a line and an exit status."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an error of ours is one line on standard error and exit status 1."""
    try:
        _run()
    except KeyboardInterrupt:  # importing the commands takes a second, in which people change their minds too
        sys.exit(130)


def _run() -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    from safelight.cli.commands import app  # noqa: PLC0415
    from safelight.cli.output import printable  # noqa: PLC0415
    from safelight.errors import SafelightError  # noqa: PLC0415

    try:
        app()
    except SafelightError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/] {escape(printable(error.message))}", highlight=False
        )
        sys.exit(1)
