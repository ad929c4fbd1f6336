"""The YAML files of `az ml … create -f`: unknown fields are refused by name, those without effect are reported."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from safelight.errors import InvalidRequest

JsonObject = dict[str, Any]

ENDPOINT_FIELDS = {
    "name", "description", "tags", "auth_mode", "traffic", "mirror_traffic", "properties", "identity", "location",
    "public_network_access", "compute",
}  # fmt: skip
DEPLOYMENT_FIELDS = {
    "name", "endpoint_name", "model", "description", "tags", "properties", "environment_variables", "instance_type",
    "instance_count", "request_settings", "liveness_probe", "readiness_probe", "app_insights_enabled", "scale_settings",
    "egress_public_network_access", "type", "code_configuration", "environment", "model_mount_path", "data_collector",
    "startup_probe",
}  # fmt: skip
CONNECTION_FIELDS = {"name", "type", "target", "credentials", "secrets", "configs", "metadata", "is_shared", "tags"}
WITHOUT_EFFECT = {
    "compute": "models run on this machine",
    "identity": "every endpoint acts in its own name",
}
"""Of an endpoint, and not sent; of what is sent the server says what has no effect."""


def read_resource(
    path: Path | None, known: Collection[str], changes: Sequence[str] = (), *, start: JsonObject | None = None
) -> JsonObject:
    """The fields of a YAML file, or those to `start` from, with `--set` changes.

    Raises InvalidRequest naming the first field that is unknown.
    """
    resource = dict(start or {}) if path is None else _load(path)
    resource.pop("$schema", None)
    for change in changes:
        _set(resource, change)
    for field in list(resource):
        if field not in known:
            raise InvalidRequest(_unknown(field, known, path), field=field)
        if field in WITHOUT_EFFECT:
            note(f"{field} has no effect: {WITHOUT_EFFECT[field]}")
    return resource


def endpoint_body(resource: Mapping[str, Any]) -> JsonObject:
    """The ARM body of an endpoint."""
    modes = {"key": "Key", "aml_token": "AMLToken", "aad_token": "AADToken"}
    mode = resource.get("auth_mode", "key")
    properties = {
        "authMode": modes.get(str(mode).lower(), mode),
        "description": resource.get("description"),
        "properties": _strings(resource.get("properties")),
        "traffic": resource.get("traffic") or {},
        "mirrorTraffic": resource.get("mirror_traffic") or {},
    }
    access = resource.get("public_network_access")
    if access is not None:
        properties["publicNetworkAccess"] = str(access).capitalize()
    return {"location": "local", "tags": _strings(resource.get("tags")), "properties": properties}


def deployment_body(resource: Mapping[str, Any]) -> JsonObject:
    """The ARM body of a deployment."""
    properties: JsonObject = {
        "endpointComputeType": str(resource.get("type") or "managed").capitalize(),
        "model": resource.get("model"),
        "instanceType": resource.get("instance_type"),
        "description": resource.get("description"),
        "properties": _strings(resource.get("properties")),
        "environmentVariables": _strings(resource.get("environment_variables")),
        "appInsightsEnabled": bool(resource.get("app_insights_enabled", False)),
    }
    for field, read in (
        ("request_settings", _request_settings),
        ("liveness_probe", _probe),
        ("readiness_probe", _probe),
        ("scale_settings", _scale_settings),
    ):
        if resource.get(field):
            properties[_camel(field)] = read(field, resource[field])
    for field in ("code_configuration", "model_mount_path", "data_collector", "startup_probe"):
        properties[_camel(field)] = resource.get(field)
    properties["environmentId"] = resource.get("environment")
    properties["egressPublicNetworkAccess"] = resource.get("egress_public_network_access")
    sku = {"name": "Default", "capacity": int(resource.get("instance_count", 1))}
    return {"location": "local", "tags": _strings(resource.get("tags")), "sku": sku, "properties": properties}


def connection_body(resource: Mapping[str, Any], secrets: Mapping[str, str]) -> JsonObject:
    """The ARM body that creates a connection, in whichever of its forms the file is written."""
    defaults = {"category": "CustomKeys", "authType": "CustomKeys", "target": "_", "credentials": {"keys": {}}}
    return {"properties": defaults | connection_changes(resource, secrets)["properties"]}


def connection_changes(resource: Mapping[str, Any], secrets: Mapping[str, str]) -> JsonObject:
    """The ARM body that changes what is named of a connection."""
    kind = str(resource.get("type", "custom")).lower().replace("_", "")
    if kind not in ("custom", "generic", "customkeys"):
        raise InvalidRequest(f"connection type {resource['type']!r} is not supported; use custom", field="type")
    credentials = resource.get("credentials") or {}
    keys = _strings(resource.get("secrets")) | _strings(credentials.get("keys")) | dict(secrets)
    if "key" in credentials:
        keys["key"] = str(credentials["key"])
    labels = _strings(resource.get("configs")) | _strings(resource.get("metadata"))
    changes = {
        "target": resource.get("target"),
        "metadata": labels or None,
        "isSharedToAll": resource.get("is_shared"),
        "credentials": {"keys": keys} if keys else None,
    }
    return {"properties": {field: value for field, value in changes.items() if value is not None}}


def parse_shares(text: str) -> dict[str, int]:
    """`blue=90 green=10`, as `az ml` writes traffic."""
    shares = {}
    for part in text.replace(",", " ").split():
        name, _, percent = part.partition("=")
        if not percent.strip("%").isdecimal():
            raise InvalidRequest(f"traffic {part!r} does not have the form DEPLOYMENT=PERCENT", field="traffic")
        shares[name] = int(percent.strip("%"))
    return shares


def _load(path: Path) -> JsonObject:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", field="file") from None
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{path} is not YAML: {error}", field="file") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} must hold a mapping, such as `name: …`", field="file")
    return value


def _set(resource: JsonObject, change: str) -> None:
    """`properties.team=art`, as `az` writes changes."""
    path, equals, value = change.partition("=")
    if not equals:
        raise InvalidRequest(f"--set {change!r} does not have the form PATH=VALUE", field="set")
    *parents, last = path.split(".")
    for parent in parents:
        resource = resource.setdefault(parent, {})
    resource[last] = yaml.safe_load(value)


def _request_settings(field: str, settings: Mapping[str, Any]) -> JsonObject:
    _check(field, settings, ("request_timeout_ms", "max_concurrent_requests_per_instance", "max_queue_wait_ms"))
    body: JsonObject = {}
    for name, wire in (("request_timeout_ms", "requestTimeout"), ("max_queue_wait_ms", "maxQueueWait")):
        if settings.get(name) is not None:
            body[wire] = f"PT{float(settings[name]) / 1000:g}S"
    if "max_concurrent_requests_per_instance" in settings:
        body["maxConcurrentRequestsPerInstance"] = int(settings["max_concurrent_requests_per_instance"])
    return body


def _probe(field: str, probe: Mapping[str, Any]) -> JsonObject:
    durations, counts = ("initial_delay", "period", "timeout"), ("success_threshold", "failure_threshold")
    _check(field, probe, (*durations, *counts))
    body: JsonObject = {_camel(name): f"PT{float(probe[name]):g}S" for name in durations if name in probe}
    return body | {_camel(name): int(probe[name]) for name in counts if name in probe}


def _scale_settings(field: str, settings: Mapping[str, Any]) -> JsonObject:
    _check(field, settings, ("type",))
    return {"scaleType": str(settings.get("type", "default")).capitalize()}


def _check(where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    for field in given:
        if field not in known:
            raise InvalidRequest(_unknown(f"{where}.{field}", [f"{where}.{each}" for each in known], None), field=where)


def _unknown(field: str, known: Collection[str], path: Path | None) -> str:
    close = difflib.get_close_matches(field, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    where = f" in {path}" if path else ""
    return f"unknown field {field!r}{where}{hint}; accepted are: {', '.join(sorted(known))}"


def _strings(mapping: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (mapping or {}).items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def note(text: str) -> None:
    """Say something beside the output."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"note: {text}", style="yellow", markup=False)
