"""Names for a shell that completes a command: those of the catalogue, and those of the server over the data directory.

A shell prints whatever comes into the line that is being written, and waits for it: so nothing but names comes, and
nothing at all from a server that does not answer soon.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import typer

TIMEOUT_S = 2.0


def complete_models() -> list[str]:
    """The models known by name."""
    from safelight.control.catalog import list_models

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
    """The server's answer, asked with the standard library: httpx takes longer to import than it to answer."""
    import json
    import ssl
    from http.client import HTTPConnection, HTTPSConnection

    from safelight.cli.arm import API_VERSION, WORKSPACE, read_access
    from safelight.environment import DEFAULT_DATA_DIR, read_variable

    folder = Path(data_dir or read_variable("data_dir") or DEFAULT_DATA_DIR).expanduser()
    address, headers = read_access(folder)
    url = urlsplit(read_variable("public_url") or address.url)
    assert url.hostname is not None
    if url.scheme == "https":
        trusted = ssl.create_default_context(cafile=address.certificate)
        connection: HTTPConnection = HTTPSConnection(url.hostname, url.port, timeout=TIMEOUT_S, context=trusted)
    else:
        connection = HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_S)
    with closing(connection):
        connection.request("GET", f"{url.path}{WORKSPACE}{path}?{urlencode(API_VERSION)}", headers=headers)
        return json.loads(connection.getresponse().read())
