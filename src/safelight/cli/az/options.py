"""The options that the nouns of `az ml` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from safelight.cli.completion import complete_endpoints, complete_resources
from safelight.cli.output import OutputFormat
from safelight.errors import InvalidRequest


def checked_name(name: str) -> str:
    """A name that can be a part of a path. Raises InvalidRequest."""
    if not name.strip(".") or quote(name, safe="") != name:
        raise InvalidRequest(f"{name!r} cannot be a name: letters, digits, - and _ make one", field="name")
    return name


Name = Annotated[
    str,
    typer.Option(
        "--name", "-n", help="Name of the resource.", callback=checked_name, autocompletion=complete_resources
    ),
]
OptionalName = Annotated[
    str | None,
    typer.Option("--name", "-n", help="Name, instead of the file's.", autocompletion=complete_resources),
]
OptionalFile = Annotated[Path | None, typer.Option("--file", "-f", help="YAML file, as `az ml` takes it.")]
Endpoint = Annotated[
    str,
    typer.Option(
        *("--endpoint-name", "--endpoint", "-e"), help="Name of the endpoint.", autocompletion=complete_endpoints
    ),
]
OptionalEndpoint = Annotated[
    str | None,
    typer.Option(
        *("--endpoint-name", "--endpoint", "-e"),
        help="Name of the endpoint, instead of the file's.",
        autocompletion=complete_endpoints,
    ),
]
Output = Annotated[
    OutputFormat | None, typer.Option("--output", "-o", help="By default a table on a terminal, JSON elsewhere.")
]
DataDir = Annotated[Path | None, typer.Option(help="The server's data directory [~/.local/share/safelight].")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return while the server is still at work.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a field of the file: PATH=VALUE.")]
Workspace = Annotated[
    str | None,
    typer.Option(
        *("--subscription", "--resource-group", "-g", "--workspace-name", "-w"),
        help="Accepted as `az` has them; there is one workspace.",
    ),
]


def confirm(question: str, *, is_sure: bool) -> None:
    """Ask before something is lost. Ends the command unless the answer is yes."""
    if not is_sure:
        typer.confirm(question, abort=True, err=True)


def name_of(kind: str, name: str | None, resource: Mapping[str, object]) -> str:
    """The name that was given, or the file's. Raises InvalidRequest if there is neither."""
    found = name or resource.get("name")
    if not found:
        raise InvalidRequest(f"give the {kind} a --name, or a name in its file", field="name")
    return checked_name(str(found))


def at_home(path: Path | str, field: str) -> Path:
    """With `~` and `~NAME` as the folder that they mean, where a shell left them as they are. Raises InvalidRequest."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        message = f"{path} lies in the home of nobody who is known; give the whole path"
        raise InvalidRequest(message, field=field) from None
