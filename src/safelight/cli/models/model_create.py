"""`safelight model create`: a folder or a hub id becomes a model that deployments name `azureml:NAME:VERSION`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from typer import Option

from safelight.cli import model_flags
from safelight.cli.arm import Arm
from safelight.cli.az.options import DataDir, OptionalFile, OptionalName, Output, Workspace, at_home, checked_name
from safelight.cli.az.resource_files import read_resource
from safelight.cli.output import print_one
from safelight.errors import InvalidRequest
from safelight.model.other_formats import SINGLE_FILES

MODEL_FIELDS = {"name", "version", "path", "description", "type", "tags", "properties"}


def create(
    *,
    name: OptionalName = None,
    version: Annotated[str | None, Option("--version", "-v", help="By default the next one.")] = None,
    path: Annotated[
        str | None, Option(help="A folder in the diffusers layout, a hub id, or a file (.safetensors, .gguf).")
    ] = None,
    components: Annotated[
        str | None, Option(help="For a path to a file: folder or hub id that has what the file lacks.")
    ] = None,
    vae: model_flags.Vae = None,
    text_encoder: model_flags.TextEncoder = None,
    text_encoder_2: model_flags.TextEncoder2 = None,
    description: Annotated[str | None, Option(help="What it is.")] = None,
    file: OptionalFile = None,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Register a model with the running server; a version never changes.

    Files are registered as a folder of links to them, which is made in the data directory: they stay where they are.
    """
    resource = read_resource(file, MODEL_FIELDS)
    given = {"name": name, "version": version, "path": path, "description": description}
    resource |= {field: value for field, value in given.items() if value is not None}
    if not resource.get("name") or not resource.get("path"):
        raise InvalidRequest("give --name and --path, or both in the file", field="name")
    checked_name(str(resource["name"]))
    checked_name(str(resource.get("version") or "next"))
    parts = {"vae": vae, "text_encoder": text_encoder, "text_encoder_2": text_encoder_2}
    uri = _folder_or_hub_id(str(resource["path"]), components, parts, data_dir)
    body = {"properties": {"modelUri": uri, "description": resource.get("description")}}
    model = Arm(data_dir).put(f"/models/{resource['name']}/versions/{resource.get('version', 'next')}", body).resource
    version = model["name"]
    print_one(
        {"name": resource["name"], "version": version, "path": uri, "uri": f"azureml:{resource['name']}:{version}"},
        output,
    )


def _folder_or_hub_id(
    path: str, components: str | None, parts: Mapping[str, Path | None], data_dir: Path | None
) -> str:
    """What the server registers."""
    from safelight.model.catalog import find_path

    given = {name: at_home(file, name) for name, file in parts.items() if file is not None}
    found = find_path(path)
    if given or components or path.lower().endswith(SINGLE_FILES) or (found is not None and not found.is_dir()):
        return _folder_of_files(path, components, given, data_dir)
    return path if found is None else str(found)


def _folder_of_files(path: str, components: str | None, parts: Mapping[str, Path], data_dir: Path | None) -> str:
    from safelight.cli.given_files import FOLDER, HubSources, given_files
    from safelight.model.catalog import find_folder
    from safelight.model.file_sets import assemble
    from safelight.settings import load_settings

    given = given_files(path, components, parts)
    if given is None:
        return str(find_folder(path) or path)
    return str(assemble(given, load_settings(data_dir=data_dir).data_dir / FOLDER, HubSources()))
