"""Names for a shell that completes a command: those of the catalogue, and those of the server over the data directory.

A shell prints whatever comes into the line that is being written, and waits for it: so nothing but names comes, and
nothing at all from a server that does not answer soon.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer

TIMEOUT_S = 2.0


def complete_models() -> list[str]:
    """The models known by name."""
    from safelight.model.catalog import list_models

    return [model.name for model in list_models()]


def complete_served_models(context: typer.Context) -> list[str]:
    """Those and the registered ones."""
    return list(dict.fromkeys([*complete_models(), *_names(context, "/models")]))


def complete_endpoints(context: typer.Context) -> list[str]:
    return _names(context, "/onlineEndpoints")


def complete_deployments(context: typer.Context) -> list[str]:
    """Of the endpoint that stands in the line already."""
    endpoint = context.params.get("endpoint_name", context.params.get("name"))
    return _names(context, f"/onlineEndpoints/{quote(endpoint, safe='')}/deployments") if endpoint else []


def complete_resources(context: typer.Context) -> list[str]:
    """What `--name` means in the command: its noun says it."""
    match context.parent and context.parent.info_name:
        case "model":
            return complete_served_models(context)
        case "connection":
            return _names(context, "/connections")
        case "online-endpoint":
            return complete_endpoints(context)
        case "online-deployment":
            return complete_deployments(context)
        case _:
            return []


def _names(context: typer.Context, path: str) -> list[str]:
    try:
        names = [str(each["name"]) for each in _get(context.params.get("data_dir"), path)["value"]]
    except Exception:  # noqa: BLE001  whatever it is: nobody can read about it in the middle of a line
        return []
    return [name for name in names if quote(name, safe="") == name]  # the shell runs what comes; names are no programs


def _get(data_dir: str | None, path: str) -> Any:
    import json
    import ssl

    from safelight.cli.arm import WORKSPACE, ask, read_access
    from safelight.environment import DEFAULT_DATA_DIR, read_variable

    folder = Path(data_dir or read_variable("data_dir") or DEFAULT_DATA_DIR).expanduser()
    address, headers = read_access(folder)
    url = (read_variable("public_url") or address.url) + WORKSPACE + path

    def trusted(_: str) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=address.certificate)

    return json.loads(ask("GET", url, headers=headers, tls=trusted, timeout_s=TIMEOUT_S).content)
