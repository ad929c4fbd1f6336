"""The entry point `safelight`: the one place where an error becomes a line and an exit status."""

from __future__ import annotations

import codecs
import io
import sys


def main() -> None:
    """Run the command line; an error of ours is one line on standard error and exit status 1."""
    if sys.platform == "win32":  # replicas need what only POSIX has; said before an import fails for it
        sys.exit("error: Safelight runs on Linux and macOS; on Windows, install it inside WSL 2")
    try:
        _run()
    except KeyboardInterrupt:  # importing a command takes a second, in which people change their minds too
        sys.exit(130)


def _run() -> None:
    from safelight.cli.commands import command_line
    from safelight.errors import SafelightError

    if isinstance(sys.stdout, io.TextIOWrapper) and codecs.lookup(sys.stdout.encoding).name != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")  # a letter that a terminal lacks costs nobody the rest
    try:
        command_line()(prog_name="safelight")
    except SafelightError as error:
        _print_error(error.message)
        sys.exit(1)


def _print_error(message: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    from safelight.cli.output import printable

    line = printable(message).replace("\n", "\\n")  # of a name in it, which is a stranger's
    Console(emoji=False, stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(line)}", highlight=False)
