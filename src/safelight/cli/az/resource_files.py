"""The YAML files of `az ml … create -f`: unknown fields are refused by name, those without effect are reported."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safelight.api.azure.auth_modes import AUTH_MODES
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
REQUEST_DURATIONS = {"request_timeout_ms": "requestTimeout", "max_queue_wait_ms": "maxQueueWait"}
"""Milliseconds of a YAML file's `request_settings`, and ISO 8601 of ARM's."""
PROBE_DURATIONS, PROBE_COUNTS = ("initial_delay", "period", "timeout"), ("success_threshold", "failure_threshold")
"""Seconds of a YAML file's probes, which ARM has in ISO 8601, and numbers that both have."""
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
    mode = resource.get("auth_mode", "key")
    properties = {
        "authMode": AUTH_MODES.get(str(mode).lower(), mode),
        "description": resource.get("description"),
        "properties": _strings("properties", resource.get("properties")),
        "traffic": resource.get("traffic") or {},
        "mirrorTraffic": resource.get("mirror_traffic") or {},
    }
    access = resource.get("public_network_access")
    if access is not None:
        properties["publicNetworkAccess"] = str(access).capitalize()
    return {"location": "local", "tags": _strings("tags", resource.get("tags")), "properties": properties}


def deployment_body(resource: Mapping[str, Any]) -> JsonObject:
    """The ARM body of a deployment."""
    if isinstance(resource.get("model"), dict):
        raise InvalidRequest(
            "a model that is written out in the deployment is not supported; register it with `safelight model create "
            "--name NAME --path PATH`, and write `model: azureml:NAME:VERSION`",
            field="model",
        )
    properties: JsonObject = {
        "endpointComputeType": str(resource.get("type") or "managed").capitalize(),
        "model": resource.get("model"),
        "instanceType": resource.get("instance_type"),
        "description": resource.get("description"),
        "properties": _strings("properties", resource.get("properties")),
        "environmentVariables": _strings("environment_variables", resource.get("environment_variables")),
        "appInsightsEnabled": bool(resource.get("app_insights_enabled", False)),
    }
    for field, read in (
        ("request_settings", _request_settings),
        ("liveness_probe", _probe),
        ("readiness_probe", _probe),
        ("scale_settings", _scale_settings),
    ):
        if resource.get(field):
            properties[camel(field)] = read(field, resource[field])
    for field in ("code_configuration", "model_mount_path", "data_collector", "startup_probe"):
        properties[camel(field)] = resource.get(field)
    properties["environmentId"] = resource.get("environment")
    properties["egressPublicNetworkAccess"] = resource.get("egress_public_network_access")
    sku = {"name": "Default", "capacity": _integer("instance_count", _given(resource, "instance_count", 1))}
    tags = _strings("tags", resource.get("tags"))
    return {"location": "local", "tags": tags, "sku": sku, "properties": properties}


def connection_body(resource: Mapping[str, Any], secrets: Mapping[str, str]) -> JsonObject:
    """The ARM body that creates a connection, in whichever of its forms the file is written."""
    defaults = {"category": "CustomKeys", "authType": "CustomKeys", "target": "_", "credentials": {"keys": {}}}
    return {"properties": defaults | connection_changes(resource, secrets)["properties"]}


def connection_changes(resource: Mapping[str, Any], secrets: Mapping[str, str]) -> JsonObject:
    """The ARM body that changes what is named of a connection."""
    kind = str(resource.get("type", "custom")).lower().replace("_", "")
    if kind not in ("custom", "generic", "customkeys"):
        raise InvalidRequest(f"connection type {resource['type']!r} is not supported; use custom", field="type")
    credentials = _mapping("credentials", resource.get("credentials"))
    _check("credentials", credentials, ("type", "key", "keys"))
    keys = _strings("secrets", resource.get("secrets")) | _strings("credentials.keys", credentials.get("keys"))
    if "key" in credentials:
        keys |= _strings("credentials", {"key": credentials["key"]})
    keys |= secrets
    labels = _strings("configs", resource.get("configs")) | _strings("metadata", resource.get("metadata"))
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
    from safelight.cli.az.yaml_text import NotYaml, parse_yaml

    try:
        value = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", field="file") from None
    except (NotYaml, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not YAML: {error}", field="file") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} must hold a mapping, such as `name: …`", field="file")
    return {str(field): each for field, each in value.items()}


def _set(resource: JsonObject, change: str) -> None:
    """`properties.team=art`, as `az` writes changes."""
    from safelight.cli.az.yaml_text import NotYaml, parse_yaml

    path, equals, value = change.partition("=")
    if not equals:
        raise InvalidRequest(f"--set {change!r} does not have the form PATH=VALUE", field="set")
    *parents, last = path.split(".")
    for parent in parents:
        resource[parent] = dict(_mapping(parent, resource.get(parent)))
        resource = resource[parent]
    try:
        resource[last] = parse_yaml(value) if value else ""
    except NotYaml as error:
        raise InvalidRequest(f"--set {path}: the value is not YAML: {error}", field="set") from None


def _request_settings(field: str, value: object) -> JsonObject:
    settings = _mapping(field, value)
    _check(field, settings, ("request_timeout_ms", "max_concurrent_requests_per_instance", "max_queue_wait_ms"))
    body: JsonObject = {}
    for name, wire in REQUEST_DURATIONS.items():
        if settings.get(name) is not None:
            body[wire] = f"PT{_number(f'{field}.{name}', settings[name]) / 1000:g}S"
    if (count := settings.get(name := "max_concurrent_requests_per_instance")) is not None:
        body[camel(name)] = _integer(f"{field}.{name}", count)
    return body


def _probe(field: str, value: object) -> JsonObject:
    probe = {name: each for name, each in _mapping(field, value).items() if each is not None}
    _check(field, probe, (*PROBE_DURATIONS, *PROBE_COUNTS))
    body: JsonObject = {
        camel(name): f"PT{_number(f'{field}.{name}', probe[name]):g}S" for name in PROBE_DURATIONS if name in probe
    }
    return body | {camel(name): _integer(f"{field}.{name}", probe[name]) for name in PROBE_COUNTS if name in probe}


def _scale_settings(field: str, value: object) -> JsonObject:
    settings = _mapping(field, value)
    counts = ("min_instances", "max_instances", "target_utilization_percentage")
    _check(field, settings, ("type", "polling_interval", *counts))
    kind = "".join(part.capitalize() for part in str(settings.get("type", "default")).split("_"))
    body: JsonObject = {"scaleType": kind}
    body |= {camel(name): _integer(f"{field}.{name}", settings[name]) for name in counts if name in settings}
    if "polling_interval" in settings:
        body["pollingInterval"] = f"PT{_number(f'{field}.polling_interval', settings['polling_interval']):g}S"
    return body


def _check(where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    for field in given:
        if field not in known:
            raise InvalidRequest(_unknown(f"{where}.{field}", [f"{where}.{each}" for each in known], None), field=where)


def _unknown(field: str, known: Collection[str], path: Path | None) -> str:
    close = difflib.get_close_matches(field, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    where = f" in {path}" if path else ""
    return f"unknown field {field!r}{where}{hint}; accepted are: {', '.join(sorted(known))}"


def _mapping(field: str, value: object) -> Mapping[str, Any]:
    """Raises InvalidRequest unless the value has fields of its own, or there is none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} must be a mapping, such as `{field}: {{NAME: VALUE}}`", field=field)
    return value


def _strings(field: str, value: object) -> dict[str, str]:
    """A mapping from text to text; values are not repeated in errors, since some are secrets."""
    texts = {}
    for key, each in _mapping(field, value).items():
        if each is None or isinstance(each, dict | list):
            raise InvalidRequest(f"{field}.{key} must be a text or a number; write its value behind it", field=field)
        texts[str(key)] = str(each)
    return texts


def _number(field: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise InvalidRequest(f"{field} must be a number, not {value!r}", field=field)
    return number


def _integer(field: str, value: object) -> int:
    number = _number(field, value)
    if not number.is_integer():
        raise InvalidRequest(f"{field} must be a whole number, not {value!r}", field=field)
    return int(number)


def _given(resource: Mapping[str, Any], field: str, default: object) -> object:
    return default if resource.get(field) is None else resource[field]


def camel(name: str) -> str:
    """As ARM spells a field of a YAML file."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def note(text: str) -> None:
    """Say something beside the output."""
    from rich.console import Console

    Console(emoji=False, stderr=True, soft_wrap=True, highlight=False).print(
        f"note: {text}", style="yellow", markup=False
    )
