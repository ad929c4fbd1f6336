"""`safelight model create`: a folder or a hub id becomes a model that deployments name `azureml:NAME:VERSION`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from safelight.cli.arm import Arm
from safelight.cli.az.options import DataDir, OptionalFile, OptionalName, Output, Workspace, checked_name
from safelight.cli.az.resource_files import read_resource
from safelight.cli.output import print_one
from safelight.errors import InvalidRequest

MODEL_FIELDS = {"name", "version", "path", "description", "type", "tags", "properties"}


def create(
    *,
    name: OptionalName = None,
    version: Annotated[str | None, Option("--version", "-v", help="By default the next one.")] = None,
    path: Annotated[str | None, Option(help="A folder in the diffusers layout, or a hub id.")] = None,
    description: Annotated[str | None, Option(help="What it is.")] = None,
    file: OptionalFile = None,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Register a model with the running server; a version never changes."""
    resource = read_resource(file, MODEL_FIELDS)
    given = {"name": name, "version": version, "path": path, "description": description}
    resource |= {field: value for field, value in given.items() if value is not None}
    if not resource.get("name") or not resource.get("path"):
        raise InvalidRequest("give --name and --path, or both in the file", field="name")
    checked_name(str(resource["name"]))
    checked_name(str(resource.get("version") or "next"))
    folder = Path(str(resource["path"])).expanduser()
    uri = str(folder.resolve()) if folder.is_dir() else str(resource["path"])
    body = {"properties": {"modelUri": uri, "description": resource.get("description")}}
    model = Arm(data_dir).put(f"/models/{resource['name']}/versions/{resource.get('version', 'next')}", body).resource
    version = model["name"]
    print_one(
        {"name": resource["name"], "version": version, "path": uri, "uri": f"azureml:{resource['name']}:{version}"},
        output,
    )
