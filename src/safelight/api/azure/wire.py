"""What Azure's resources share on the wire: paths in any case, durations, system data, long-running operations."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from safelight.api.http.bodies.body import read_json_object
from safelight.api.http.links import server_url
from safelight.api.http.openapi import request_body
from safelight.api.http.validation import Model, validate
from safelight.control.store.tables import Operation, OperationStatus
from safelight.errors import InvalidRequest
from safelight.settings import Settings

JsonObject = dict[str, object]
PROVIDER = "Microsoft.MachineLearningServices"
GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers/" + PROVIDER
WORKSPACE = GROUP + "/workspaces/{workspace}"
LOCATION = "local"
_SEGMENTS = {
    each.lower(): each
    for each in (
        *("subscriptions", "resourceGroups", "providers", PROVIDER, "workspaces", "locations"),
        *("mfeOperationsStatus", "mfeOperationResults", "rotateEncryptionKey", "secretReads"),
        *("connections", "listsecrets", "onlineEndpoints", "listKeys", "regenerateKeys", "token"),
        *("deployments", "getLogs", "skus", "models", "versions", "registries"),
        *("registrymanagement", "discovery", "mferp", "managementfrontend", "metadata", "endpoints"),
    )
}
"""The words of ARM's paths; what is not among them is a name."""
OPERATION_PROPERTY = "AzureAsyncOperationUri"
"""Of endpoints and deployments, beside the properties that a user gives."""
BODY_TIMEOUT_S = 60.0
_ANSWERS = {
    200: "Done",
    201: "Begun to create; `Azure-AsyncOperation` says where to ask how it stands",
    202: "Begun; `Azure-AsyncOperation` says where to ask how it stands",
    204: "Nothing to do, or done with nothing to say",
    400: "Something in the request is wrong; the message names the field and what would be right",
    404: "Not there; the message names the command that lists what is",
    408: "The body did not arrive in time",
    409: "The endpoint has an operation in progress, or the resource is in use",
    413: "The body is larger than the server reads",
    415: "The body is not JSON",
    503: "The database takes no writes, or the model's folder cannot be read; the message says which, and why",
}
_TENANT = uuid.uuid5(uuid.NAMESPACE_DNS, "safelight")
MAX_DURATION_CHARACTERS = 64
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(
    rf"P(?:(?P<days>{_NUMBER})D)?"
    rf"(?:T(?:(?P<hours>{_NUMBER})H)?(?:(?P<minutes>{_NUMBER})M)?(?:(?P<seconds>{_NUMBER})S)?)?",
    re.ASCII,
)


def canonical_path(path: str) -> str:
    """A path of ARM, which has no case, in the case of our routes."""
    return "/".join(_SEGMENTS.get(segment.lower(), segment) for segment in path.split("/"))


class ArmModel(BaseModel):
    """A body in camel case. API versions differ in what else they send, so other fields are let through unread."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class ArmPatch(ArmModel):
    """The body of a PATCH, or an object in it: what it names is changed or refused, never passed over."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request was made: how clients reach the server, and the workspace in the path."""

    url: str
    path: str
    """Of the workspace, as the request wrote it."""
    subscription: str
    api_version: str


def place_of(request: Request, settings: Settings) -> Place:
    """For an answer with links, before anything is done. Raises InvalidRequest if they cannot be made."""
    parameters = request.path_params
    return Place(
        url=server_url(request, settings),
        path=workspace_path(request),
        subscription=parameters.get("subscription", ""),
        api_version=request.query_params.get("api-version", ""),
    )


def workspace_path(request: Request) -> str:
    """The workspace in the path, as the request wrote it: what the ids of its resources begin with."""
    path: str = request.scope["path"]
    end = re.search(r"/workspaces/[^/]+", path, re.IGNORECASE)
    return path[: end.end()] if end else path


async def read_body(request: Request, model: type[Model], settings: Settings) -> Model:
    """The JSON body as `model`. Raises InvalidRequest."""
    content = await read_json_object(request, max_bytes=settings.max_body_bytes, timeout_s=BODY_TIMEOUT_S)
    refuse_nul(content)
    return validate(model, content)


def refuse_nul(values: Mapping[str, object]) -> None:
    """A text with a NUL character fits into no column of PostgreSQL and into no environment variable.

    Raises InvalidRequest naming the field.
    """
    pending: list[tuple[str, object]] = [("", values)]
    while pending:
        place, value = pending.pop()
        if isinstance(value, dict):
            for name, each in value.items():
                here = f"{place}.{name[:64]}"[:64]
                pending += [(here, name), (here, each)]
        elif isinstance(value, list):
            pending += [(place, each) for each in value]
        elif isinstance(value, str) and "\0" in value:
            field = place.removeprefix(".").replace("\0", "\\0")
            raise InvalidRequest(f"{field} has a NUL character; leave it out", field=field)


def documented(*statuses: int, body: type[BaseModel] | None = None) -> dict[str, Any]:
    """What FastAPI cannot read off a route that reads its own body and answers in several ways."""
    read = () if body is None else (400, 408, 413, 415, 503)
    return {
        "responses": {status: {"description": _ANSWERS[status]} for status in sorted({*statuses, *read})},
        "openapi_extra": None if body is None else request_body(body, {}),
    }


def collection(items: list[JsonObject]) -> JsonObject:
    return {"value": items, "nextLink": None}


def system_data(created_at: datetime, updated_at: datetime) -> JsonObject:
    return {
        "createdBy": "administrator",
        "createdByType": "User",
        "createdAt": created_at.isoformat(),
        "lastModifiedBy": "administrator",
        "lastModifiedByType": "User",
        "lastModifiedAt": updated_at.isoformat(),
    }


def identity_of(name: str) -> JsonObject:
    """Every resource acts in its own name; the ids are made from it."""
    return {"type": "SystemAssigned", "principalId": str(uuid.uuid5(_TENANT, name)), "tenantId": str(_TENANT)}


def with_operation(properties: Mapping[str, str], place: Place, operation: Operation) -> dict[str, str]:
    """A resource's own properties, and where to ask how its operation stands: Azure's REST walkthrough waits there."""
    return {**properties, OPERATION_PROPERTY: _operation_url(place, "mfeOperationsStatus", operation)}


def without_operation(properties: Mapping[str, str] | None) -> dict[str, str]:
    """The user's own properties: who changes what was answered sends the operation back, and it is none of them."""
    return {name: text for name, text in (properties or {}).items() if name.lower() != OPERATION_PROPERTY.lower()}


def _operation_url(place: Place, kind: str, operation: Operation) -> str:
    root = f"{place.url}/subscriptions/{place.subscription}/providers/{PROVIDER}/locations/{LOCATION}"
    return f"{root}/{kind}/{operation.id}?api-version={place.api_version}"


def accepted(place: Place, operation: Operation, body: Mapping[str, object] | None, *, status: int) -> Response:
    """The answer that begins a long-running operation; `Retry-After` keeps azure-core from waiting 30 s."""
    headers = {
        "Azure-AsyncOperation": _operation_url(place, "mfeOperationsStatus", operation),
        "Retry-After": "1",
        "x-ms-async-operation-timeout": "PT1H",
    }
    if body is None:
        headers["Location"] = _operation_url(place, "mfeOperationResults", operation)
        return Response(status_code=status, headers=headers)
    return JSONResponse(body, status_code=status, headers=headers)


def render_operation(operation: Operation) -> Response:
    """How an operation stands."""
    is_done = operation.status is not OperationStatus.IN_PROGRESS
    body: JsonObject = {
        "id": operation.id,
        "name": operation.id,
        "status": operation.status.value,
        "percentComplete": 100 if is_done else 0,
        "startTime": operation.created_at.isoformat(),
    }
    if operation.finished_at is not None:
        body["endTime"] = operation.finished_at.isoformat()
    if operation.error_code is not None:
        body["error"] = {"code": operation.error_code, "message": operation.error_message, "details": []}
    return JSONResponse(body, headers={} if is_done else {"Retry-After": "1"})


def parse_duration(text: str, field: str) -> float:
    """Seconds of an ISO 8601 duration such as PT1M30S. Raises InvalidRequest."""
    match = _DURATION.fullmatch(text) if len(text) <= MAX_DURATION_CHARACTERS else None
    if match is None or not any(match.groupdict().values()):
        raise InvalidRequest(f"{field} {text[:32]!r} is not an ISO 8601 duration such as PT90S", field=field)
    factors = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
    return sum(float(value) * factors[name] for name, value in match.groupdict().items() if value)


def format_duration(seconds: float) -> str:
    """To the microsecond, and never as 1e-05: no client reads that."""
    return "PT" + f"{seconds:.6f}".rstrip("0").rstrip(".") + "S"
