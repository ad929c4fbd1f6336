"""`safelight online-endpoint`: stable names with keys and traffic, in the verbs of `az ml online-endpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safelight.api.azure.auth_modes import AUTH_MODES
from safelight.cli.arm import Arm, RequestRefused
from safelight.cli.az.options import (
    DataDir,
    Name,
    NoWait,
    OptionalFile,
    OptionalName,
    Output,
    Set,
    Workspace,
    Yes,
    confirm,
    name_of,
)
from safelight.cli.az.resource_files import (
    ENDPOINT_FIELDS,
    endpoint_body,
    note,
    parse_shares,
    read_resource,
)
from safelight.cli.completion import complete_deployments
from safelight.cli.output import print_list, print_one
from safelight.errors import InvalidRequest

if TYPE_CHECKING:
    import httpx

app = typer.Typer(help="Manage online endpoints.", no_args_is_help=True)

INVOKE_TIMEOUT_S = 240.0
AuthMode = Annotated[str | None, typer.Option(help="key, aml_token or aad_token.")]


@app.command("create")
def create(
    *,
    name: OptionalName = None,
    file: OptionalFile = None,
    auth_mode: AuthMode = None,
    set: Set = None,
    no_wait: NoWait = False,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Create an endpoint, or replace it."""
    resource = read_resource(file, ENDPOINT_FIELDS, set or [])
    if auth_mode is not None:
        resource["auth_mode"] = auth_mode
    name = name_of("endpoint", name, resource)
    _put(Arm(data_dir), name, endpoint_body(resource), no_wait=no_wait, output=output)


@app.command("update")
def update(
    *,
    name: OptionalName = None,
    file: OptionalFile = None,
    traffic: Annotated[str | None, typer.Option(help="Such as 'blue=90 green=10'.")] = None,
    mirror_traffic: Annotated[str | None, typer.Option(help="Such as 'green=10'; 50 at most.")] = None,
    set: Set = None,
    no_wait: NoWait = False,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Change an endpoint: its traffic, tags, or added properties."""
    changed = read_resource(file, ENDPOINT_FIELDS)
    name = name_of("endpoint", name, changed)
    arm = Arm(data_dir)
    resource = _settable(arm.get(f"/onlineEndpoints/{name}")) | changed
    resource = read_resource(None, ENDPOINT_FIELDS, set or [], start=resource)
    if traffic is not None:
        resource["traffic"] = _merged(resource["traffic"], parse_shares(traffic))
    if mirror_traffic is not None:
        resource["mirror_traffic"] = parse_shares(mirror_traffic)
    _put(arm, name, endpoint_body(resource), no_wait=no_wait, output=output)


@app.command("show")
def show(
    *,
    name: Name,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Show an endpoint."""
    print_one(_view(Arm(data_dir).get(f"/onlineEndpoints/{name}")), output)


@app.command("list")
def list_(
    *,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """List the endpoints."""
    columns = ("name", "provisioning_state", "auth_mode", "traffic", "scoring_uri")
    print_list([_view(each) for each in Arm(data_dir).list("/onlineEndpoints")], columns, output)


@app.command("delete")
def delete(
    *,
    name: Name,
    yes: Yes = False,
    no_wait: NoWait = False,
    _workspace: Workspace = None,
    data_dir: DataDir = None,
) -> None:
    """Delete an endpoint with its deployments."""
    confirm(f"Delete endpoint {name} with its deployments?", is_sure=yes)
    arm = Arm(data_dir)
    operation = arm.delete(f"/onlineEndpoints/{name}")
    if not no_wait:
        arm.wait(operation, f"Deleting endpoint {name}")


@app.command("get-credentials")
def get_credentials(
    *,
    name: Name,
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Show an endpoint's keys, or a fresh token."""
    arm = Arm(data_dir)
    print_one(_credentials(arm, arm.get(f"/onlineEndpoints/{name}")), output)


@app.command("regenerate-keys")
def regenerate_keys(
    *,
    name: Name,
    key_type: Annotated[Literal["primary", "secondary"], typer.Option(help="Which key to replace.")] = "primary",
    _workspace: Workspace = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Replace one key; the other stays valid."""
    path = f"/onlineEndpoints/{name}/regenerateKeys"
    print_one(Arm(data_dir).post(path, {"keyType": key_type.capitalize()}), output)


@app.command("invoke")
def invoke(
    *,
    name: Name,
    request_file: Annotated[Path, typer.Option("--request-file", "-r", help="JSON file to send.")],
    deployment_name: Annotated[
        str | None,
        typer.Option(
            *("--deployment-name", "--deployment", "-d"),
            help="Deployment, whatever the traffic.",
            autocompletion=complete_deployments,
        ),
    ] = None,
    output_file: Annotated[Path, typer.Option("--output-file", help="Where the picture goes.")] = Path("out.png"),
    _workspace: Workspace = None,
    data_dir: DataDir = None,
) -> None:
    """Send a request to an endpoint and save the picture."""
    import httpx

    arm = Arm(data_dir)
    endpoint = arm.get(f"/onlineEndpoints/{name}")
    credentials = _credentials(arm, endpoint)
    headers = {
        "Authorization": f"Bearer {credentials.get('primaryKey') or credentials.get('accessToken')}",
        "Content-Type": "application/json",
        "Accept": "image/png, application/json;q=0.5",
    }
    if deployment_name is not None:
        headers["azureml-model-deployment"] = deployment_name
    try:
        content = request_file.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{request_file} cannot be read: {error.strerror}", field="request_file") from None
    if not output_file.parent.is_dir():
        raise InvalidRequest(f"{output_file} cannot be written: there is no such folder", field="output_file")
    url = endpoint["properties"]["scoringUri"]
    try:
        response = httpx.post(
            url, content=content, headers=headers, verify=arm.tls(url), timeout=INVOKE_TIMEOUT_S, trust_env=False
        )
    except httpx.HTTPError as error:
        raise RequestRefused(f"the endpoint at {url} has not answered: {error}") from None
    _save(response, output_file)


def _save(response: httpx.Response, path: Path) -> None:
    from rich.console import Console

    console = Console(emoji=False, stderr=True, soft_wrap=True, highlight=False)
    if response.is_error:
        raise RequestRefused(f"the endpoint answered {response.status_code}: {response.text[:2000]}")
    for warning in response.headers.get_list("x-safelight-warning"):
        console.print(f"warning: {warning}", style="yellow", markup=False)
    if not response.headers.get("content-type", "").startswith("image/"):
        typer.echo(response.text)
        return
    try:
        path.write_bytes(response.content)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", field="output_file") from None
    console.print(f"{path}  seed {response.headers.get('x-safelight-seed', '?')}", markup=False)


def _put(arm: Arm, name: str, body: dict[str, Any], *, no_wait: bool, output: Output) -> None:
    path = f"/onlineEndpoints/{name}"
    operation = arm.put(path, body)
    for warning in operation.resource["properties"]["warnings"]:
        note(warning)
    if no_wait:
        print_one(_view(operation.resource), output)
        return
    arm.wait(operation, f"Creating or updating endpoint {name}")
    print_one(_view(arm.get(path)), output)


def _credentials(arm: Arm, endpoint: dict[str, Any]) -> dict[str, Any]:
    name, mode = endpoint["name"], endpoint["properties"]["authMode"]
    if mode == "AADToken":
        raise InvalidRequest(f"endpoint '{name}' takes tokens of the OIDC issuer; get one there", field="name")
    return arm.post(f"/onlineEndpoints/{name}/{'token' if mode == 'AMLToken' else 'listKeys'}")


def _settable(resource: dict[str, Any]) -> dict[str, Any]:
    """An endpoint as a YAML file would have it."""
    properties = resource["properties"]
    return {
        "auth_mode": next(mode for mode, arm in AUTH_MODES.items() if arm == properties["authMode"]),
        "description": properties["description"],
        "tags": resource["tags"],
        "properties": properties["properties"],
        "traffic": properties["traffic"],
        "mirror_traffic": properties["mirrorTraffic"],
        "public_network_access": properties["publicNetworkAccess"],
    }


def _merged(traffic: dict[str, int], changes: dict[str, int]) -> dict[str, int]:
    """What is not named keeps its share, unless the changes say it all."""
    return changes if sum(changes.values()) == 100 else traffic | changes


def _view(resource: dict[str, Any]) -> dict[str, Any]:
    """Beside Azure's scoring URI, which answers in JSON unless it is told otherwise, the URLs for other clients."""
    properties = resource["properties"]
    url = properties["scoringUri"].removesuffix("/score")
    return {
        "name": resource["name"],
        "provisioning_state": properties["provisioningState"],
        "scoring_uri": properties["scoringUri"],
        "picture_uri": f"{url}/predict",
        "openai_base_url": f"{url}/v1",
        **_settable(resource),
        "warnings": properties["warnings"],
        "created_at": resource["systemData"]["createdAt"],
    }
