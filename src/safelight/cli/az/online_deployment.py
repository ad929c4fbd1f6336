"""`safelight online-deployment`: models behind an endpoint, in the verbs of `az ml online-deployment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.cli.arm import Arm
from safelight.cli.az.options import (
    DataDir,
    Endpoint,
    Name,
    NoWait,
    OptionalEndpoint,
    OptionalFile,
    OptionalName,
    Output,
    Set,
    Workspace,
    Yes,
    checked_name,
    confirm,
)
from safelight.cli.az.resource_files import (
    DEPLOYMENT_FIELDS,
    PROBE_COUNTS,
    PROBE_DURATIONS,
    REQUEST_DURATIONS,
    camel,
    deployment_body,
    note,
    read_resource,
)
from safelight.cli.completion import complete_served_models
from safelight.cli.output import print_list, print_one
from safelight.errors import InvalidRequest

app = typer.Typer(help="Manage online deployments.", no_args_is_help=True)

Model = Annotated[
    str | None,
    typer.Option(
        help="Model URI, name, folder, or hub id; org/name@REVISION pins a commit, tag or branch.",
        autocompletion=complete_served_models,
    ),
]
InstanceCount = Annotated[int | None, typer.Option(help="Replicas.")]


@app.command("create")
def create(
    *,
    name: OptionalName = None,
    endpoint_name: OptionalEndpoint = None,
    file: OptionalFile = None,
    model: Model = None,
    instance_count: InstanceCount = None,
    all_traffic: Annotated[bool, typer.Option("--all-traffic", help="Then send all traffic to it.")] = False,
    set: Set = None,
    no_wait: NoWait = False,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Create a deployment, or replace it; what serves goes on until the new replicas are ready."""
    resource = read_resource(file, DEPLOYMENT_FIELDS, set or [])
    given = {"name": name, "endpoint_name": endpoint_name, "model": model, "instance_count": instance_count}
    resource |= {field: value for field, value in given.items() if value is not None}
    if no_wait and all_traffic:
        note("--no-wait has no effect with --all-traffic: traffic moves when the deployment is ready")
    arm = Arm(data_dir)
    _put(arm, resource, no_wait=no_wait and not all_traffic, output=output)
    if all_traffic:
        _send_all_traffic(arm, resource["endpoint_name"], resource["name"])


@app.command("update")
def update(
    *,
    name: OptionalName = None,
    endpoint_name: OptionalEndpoint = None,
    file: OptionalFile = None,
    instance_count: InstanceCount = None,
    set: Set = None,
    no_wait: NoWait = False,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Change a deployment; what serves goes on until the new replicas are ready."""
    changed = read_resource(file, DEPLOYMENT_FIELDS)
    name, endpoint_name = name or changed.get("name"), endpoint_name or changed.get("endpoint_name")
    arm = Arm(data_dir)
    resource = _settable(arm.get(_path(endpoint_name, name))) | changed
    resource = read_resource(None, DEPLOYMENT_FIELDS, set or [], start=resource)
    if instance_count is not None:
        resource["instance_count"] = instance_count
    _put(arm, resource | {"name": name, "endpoint_name": endpoint_name}, no_wait=no_wait, output=output)


@app.command("show")
def show(
    *,
    name: Name,
    endpoint_name: Endpoint,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Show a deployment, and why it failed if it did."""
    print_one(_view(Arm(data_dir).get(_path(endpoint_name, name))), output)


@app.command("list")
def list_(
    *,
    endpoint_name: Endpoint,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """List the deployments of an endpoint."""
    rows = Arm(data_dir).list(f"/onlineEndpoints/{checked_name(endpoint_name)}/deployments")
    print_list([_view(each) for each in rows], ("name", "provisioning_state", "instance_count", "model"), output)


@app.command("delete")
def delete(
    *,
    name: Name,
    endpoint_name: Endpoint,
    yes: Yes = False,
    no_wait: NoWait = False,
    _workspace: Workspace = None,
    data_dir: DataDir = None,
) -> None:
    """Delete a deployment that takes no traffic."""
    confirm(f"Delete deployment {name} of endpoint {endpoint_name}?", is_sure=yes)
    arm = Arm(data_dir)
    operation = arm.delete(_path(endpoint_name, name))
    if not no_wait:
        arm.wait(operation, f"Deleting deployment {name}")


@app.command("get-logs")
def get_logs(
    *,
    name: Name,
    endpoint_name: Endpoint,
    lines: Annotated[int, typer.Option("--lines", "-l", help="How many of the last lines.")] = 5000,
    container: Annotated[
        str | None, typer.Option("--container", "-c", help="storage-initializer or inference-server.")
    ] = None,
    _workspace: Workspace = None,
    data_dir: DataDir = None,
) -> None:
    """Show the last lines of a deployment's logs."""
    body: dict[str, Any] = {"tail": lines}
    if container is not None:
        body["containerType"] = "".join(map(str.capitalize, container.split("-")))
    typer.echo(Arm(data_dir).post(f"{_path(endpoint_name, name)}/getLogs", body)["content"], nl=False)


def _put(arm: Arm, resource: dict[str, Any], *, no_wait: bool, output: Output) -> None:
    path = _path(resource.get("endpoint_name"), resource.get("name"))
    operation = arm.put(path, deployment_body(resource | {"model": _located(arm, resource.get("model"))}))
    for warning in operation.resource["properties"]["warnings"]:
        note(warning)
    if no_wait:
        print_one(_view(operation.resource), output)
        return
    arm.wait(operation, f"Deploying {resource['name']}", lambda: _download(arm, path))
    print_one(_view(arm.get(path)), output)


def _located(arm: Arm, model: object) -> object:
    """A folder by its absolute path: the server works in another one. What names a model of the server stays."""
    from safelight.model.catalog import find_folder, find_path
    from safelight.model.spec import registry_name

    if not isinstance(model, str) or Path(model).is_absolute() or find_path(model) is None:
        return model
    is_name = "/" not in model and {model, registry_name(model)} & {each["name"] for each in arm.list("/models")}
    return model if is_name else str(find_folder(model))


def _download(arm: Arm, path: str) -> str:
    """How far the download of the model is, as the logs say; empty when there is none."""
    line = arm.post(f"{path}/getLogs", {"containerType": "StorageInitializer", "tail": 1})["content"].strip()
    return f"downloading {line.rpartition(': ')[2]}" if " Downloading " in line else ""


def _send_all_traffic(arm: Arm, endpoint_name: str, name: str) -> None:
    path = f"/onlineEndpoints/{endpoint_name}"
    endpoint = arm.get(path)
    endpoint["properties"]["traffic"] = {name: 100}
    arm.wait(arm.put(path, endpoint), f"Sending all traffic to {name}")


def _path(endpoint_name: str | None, name: str | None) -> str:
    if not endpoint_name or not name:
        raise InvalidRequest("give --name and --endpoint-name, or both in the file", field="name")
    return f"/onlineEndpoints/{checked_name(str(endpoint_name))}/deployments/{checked_name(str(name))}"


def _settable(resource: dict[str, Any]) -> dict[str, Any]:
    """A deployment as a YAML file would have it."""
    properties = resource["properties"]
    return {
        "model": properties["model"],
        "instance_count": resource["sku"]["capacity"],
        "instance_type": properties["instanceType"],
        "description": properties["description"],
        "tags": resource["tags"],
        "properties": properties["properties"],
        "environment_variables": properties["environmentVariables"],
        "request_settings": _request_settings(properties["requestSettings"]),
        "liveness_probe": _probe(properties["livenessProbe"]),
        "readiness_probe": _probe(properties["readinessProbe"]),
        "app_insights_enabled": properties["appInsightsEnabled"],
        "egress_public_network_access": properties["egressPublicNetworkAccess"],
    }


def _request_settings(requests: dict[str, Any]) -> dict[str, int]:
    given = {name: requests[wire] for name, wire in REQUEST_DURATIONS.items() if requests[wire] is not None}
    settings = {name: round(_seconds(duration) * 1000) for name, duration in given.items()}
    name = "max_concurrent_requests_per_instance"
    return settings | {name: requests[camel(name)]}


def _probe(probe: dict[str, Any] | None) -> dict[str, float] | None:
    if probe is None:
        return None
    seconds = {name: _seconds(probe[camel(name)]) for name in PROBE_DURATIONS}
    return seconds | {name: probe[camel(name)] for name in PROBE_COUNTS}


def _seconds(duration: str) -> float:
    """Of what our own server writes: PT90S."""
    return float(duration.removeprefix("PT").removesuffix("S"))


def _view(resource: dict[str, Any]) -> dict[str, Any]:
    properties = resource["properties"]
    error = properties["provisioningError"]
    return {
        "name": resource["name"],
        "endpoint_name": resource["id"].rsplit("/", 3)[1],
        "provisioning_state": properties["provisioningState"],
        "error": None if error is None else f"({error['code']}) {error['message']}",
        **_settable(resource),
        "served_from": properties["servedFrom"],
        "served_revision": properties["servedRevision"],
        "warnings": properties["warnings"],
        "created_at": resource["systemData"]["createdAt"],
    }
