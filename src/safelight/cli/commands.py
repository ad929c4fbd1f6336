"""Every command of `safelight`, put together."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from safelight import __version__
from safelight.cli import (
    connection,
    generate,
    inspect,
    model,
    model_create,
    online_deployment,
    online_endpoint,
    replay,
    serve,
)

app = typer.Typer(
    name="safelight",
    help="FLUX.1-schnell, and models built like it, served on machines you own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve")(serve.serve)
app.command("generate")(generate.generate)
app.command("inspect")(inspect.inspect)
app.command("replay")(replay.replay)
app.add_typer(model.app, name="model")
model.app.command("create")(model_create.create)
app.add_typer(connection.app, name="connection")
app.add_typer(online_endpoint.app, name="online-endpoint")
app.add_typer(online_deployment.app, name="online-deployment")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        Console().print(f"safelight {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """FLUX.1-schnell, and models built like it, served on machines you own."""
