"""`safelight connection`: named secrets, such as the hub token that a gated model needs."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated, Any

import typer

from safelight.cli.arm import Arm
from safelight.cli.az.options import (
    DataDir,
    Name,
    OptionalFile,
    OptionalName,
    Output,
    Set,
    Workspace,
    Yes,
    at_home,
    confirm,
    name_of,
)
from safelight.cli.az.resource_files import CONNECTION_FIELDS, connection_body, connection_changes, read_resource
from safelight.cli.output import print_list, print_one
from safelight.errors import InvalidRequest

app = typer.Typer(help="Manage workspace connections: named secrets.", no_args_is_help=True)

Secret = Annotated[
    list[str] | None,
    typer.Option("--secret", help="KEY asks for the value; KEY=VALUE shows it in process listings."),
]
SecretFile = Annotated[list[str] | None, typer.Option("--secret-file", help="KEY=FILE; KEY=- reads standard input.")]


@app.command("create")
def create(
    *,
    name: OptionalName = None,
    file: OptionalFile = None,
    type: Annotated[str | None, typer.Option("--type", help="Generic or custom.")] = None,
    secret: Secret = None,
    secret_file: SecretFile = None,
    set: Set = None,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Create or replace a connection."""
    resource = read_resource(file, CONNECTION_FIELDS, set or [])
    if type is not None:
        resource["type"] = type
    name = name_of("connection", name, resource)
    body = connection_body(resource, _read_secrets(secret or [], secret_file or []))
    print_one(_view(Arm(data_dir).put(f"/connections/{name}", body).resource), output)


@app.command("update")
def update(
    *,
    name: OptionalName = None,
    file: OptionalFile = None,
    secret: Secret = None,
    secret_file: SecretFile = None,
    set: Set = None,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Change a connection; secrets that are not named keep their values."""
    resource = read_resource(file, CONNECTION_FIELDS, set or [])
    name = name_of("connection", name, resource)
    changes = connection_changes(resource, _read_secrets(secret or [], secret_file or []))
    print_one(_view(Arm(data_dir).patch(f"/connections/{name}", changes)), output)


@app.command("show")
def show(
    *,
    name: Name,
    populate_secrets: Annotated[bool, typer.Option("--populate-secrets", help="With the values; audited.")] = False,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Show a connection, without its secrets."""
    arm, path = Arm(data_dir), f"/connections/{name}"
    print_one(_view(arm.post(f"{path}/listsecrets") if populate_secrets else arm.get(path)), output)


@app.command("list")
def list_(
    *,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """List the connections, without their secrets."""
    print_list([_view(each) for each in Arm(data_dir).list("/connections")], ("name", "type", "target"), output)


@app.command("delete")
def delete(
    *,
    name: Name,
    yes: Yes = False,
    _workspace: Workspace = None,
    data_dir: DataDir = None,
) -> None:
    """Delete a connection; what was deployed with it keeps its values."""
    confirm(f"Delete connection {name}?", is_sure=yes)
    Arm(data_dir).delete(f"/connections/{name}")


@app.command("list-secret-reads")
def list_secret_reads(*, output: Output = None, data_dir: DataDir = None) -> None:
    """Show who read which secret and when, newest first."""
    reads = [
        {"read_at": each["readAt"], "reader": each["reader"], "connection": each["connection"], "part": each["part"]}
        for each in Arm(data_dir).list("/secretReads")
    ]
    print_list(reads, ("read_at", "reader", "connection", "part"), output)


@app.command("rotate-encryption-key")
def rotate_encryption_key(*, output: Output = None, data_dir: DataDir = None) -> None:
    """Put every secret under a new encryption key."""
    print_one(Arm(data_dir).post("/rotateEncryptionKey"), output)


def _read_secrets(secrets: list[str], files: list[str]) -> dict[str, str]:
    values = {}
    for secret in secrets:
        key, equals, value = secret.partition("=")
        values[key] = value if equals else _ask(key)
    for file in files:
        key, equals, path = file.partition("=")
        if not equals:
            raise InvalidRequest("a --secret-file does not have the form KEY=FILE", field="secret_file")
        values[key] = _read_file(path)
    return values


def _ask(key: str) -> str:
    if not sys.stdin.isatty():
        raise InvalidRequest(
            f"there is no terminal to ask for {key}; give --secret-file {key}=FILE, or {key}=- for standard input",
            field="secret",
        )
    try:
        value = getpass.getpass(f"{key}: ").strip()
    except EOFError:
        typer.echo(err=True)
        value = ""
    except KeyboardInterrupt:
        typer.echo("\ncancelled; nothing was changed", err=True)
        raise typer.Exit(130) from None
    if not value:
        raise InvalidRequest(f"no value was given for {key}; nothing was changed", field="secret")
    return value


def _read_file(path: str) -> str:
    try:
        text = sys.stdin.read() if path == "-" else at_home(path, "secret_file").read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", field="secret_file") from None
    except UnicodeDecodeError:
        where = "standard input" if path == "-" else path
        raise InvalidRequest(f"{where} is no text in UTF-8, and a secret is one", field="secret_file") from None
    return text.strip()


def _view(resource: dict[str, Any]) -> dict[str, Any]:
    properties = resource["properties"]
    view = {
        "name": resource["name"],
        "type": "custom",
        "target": properties["target"],
        "metadata": properties["metadata"],
        "is_shared": properties["isSharedToAll"],
        "created_at": resource["systemData"]["createdAt"],
    }
    credentials = properties["credentials"]
    return view if credentials is None else view | {"credentials": credentials}
