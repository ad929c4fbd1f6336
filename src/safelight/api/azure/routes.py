"""The Azure dialect: the part of Azure Resource Manager that `azure-ai-ml` and `az ml` style scripts speak.

Paths match in any case, any api-version is served, and any subscription, resource group and workspace name the one
workspace that there is. Every route under `/subscriptions` needs the administrator's token.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response

from safelight.api.azure import connections as azure_connections
from safelight.api.azure import deployments as azure_deployments
from safelight.api.azure import endpoints as azure_endpoints
from safelight.api.azure import registry as azure_registry
from safelight.api.azure import workspace_models as azure_models
from safelight.api.azure.wire import (
    GROUP,
    LOCATION,
    PROVIDER,
    WORKSPACE,
    JsonObject,
    documented,
    identity_of,
    place_of,
    refuse_nul,
    render_operation,
)
from safelight.api.dialect import Dialect, ErrorReport
from safelight.api.dialect import JsonObject as ErrorBody
from safelight.api.http.links import server_url
from safelight.control.endpoints.operations import get_operation
from safelight.control.plane import ControlPlane
from safelight.control.store.tables import OperationStatus
from safelight.errors import AuthenticationFailed
from safelight.settings import Settings

OPERATIONS = "/subscriptions/{subscription}/providers/" + PROVIDER + "/locations/{location}"
METADATA = "/metadata/endpoints"
_ROOTS = ("/subscriptions", "/mferp", "/registrymanagement", "/metadata")
_CODES = {
    400: "BadRequest",
    401: "AuthenticationFailed",
    404: "ResourceNotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    413: "RequestTooLarge",
    415: "UnsupportedMediaType",
    503: "ServiceUnavailable",
}


@dataclass(frozen=True, slots=True)
class Workspace:
    """What these routes stand on."""

    plane: ControlPlane
    settings: Settings


def create_router(workspace: Workspace) -> APIRouter:
    """All routes of this dialect; who may use them is checked before (`check_administrator`)."""
    plane, settings = workspace.plane, workspace.settings

    def check_names(request: Request) -> None:
        refuse_nul(request.path_params)

    guarded = APIRouter(
        dependencies=[Depends(check_names)],
        responses={
            400: {"description": "Something in the request is wrong; the message names the field"},
            401: {"description": "No administrator's token, or a wrong one"},
        },
    )
    for part in (azure_connections, azure_endpoints, azure_deployments, azure_models):
        guarded.include_router(part.create_router(plane, settings))
    guarded.include_router(azure_registry.create_router(settings))
    guarded.include_router(_create_workspace_router(plane, settings))
    router = APIRouter()
    router.include_router(guarded)
    router.include_router(_create_metadata_router(settings))
    return router


def check_administrator(request: Request, admin_token: str) -> None:
    """Raises AuthenticationFailed."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), admin_token.encode()):
        raise AuthenticationFailed(
            "this needs the administrator's token, as `Authorization: Bearer <token>`; it is in the file admin-token "
            "of the server's data directory"
        )


def _create_workspace_router(plane: ControlPlane, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["Workspace"])

    @router.get(WORKSPACE, summary="Show the workspace")
    async def get_workspace(request: Request, workspace: str) -> JsonObject:
        place = place_of(request, settings)
        return {
            "id": place.path,
            "name": workspace,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": LOCATION,
            "kind": "Default",
            "tags": {},
            "identity": identity_of("workspace"),
            "properties": {
                "workspaceId": str(identity_of("workspace")["principalId"]),
                "friendlyName": workspace,
                "description": "",
                "discoveryUrl": f"{place.url}/discovery",
                "provisioningState": "Succeeded",
                "publicNetworkAccess": "Enabled",
            },
        }

    @router.get(GROUP + "/workspaces", summary="List the workspaces: none is listed, any name is served")
    async def list_workspaces() -> JsonObject:
        return {"value": [], "nextLink": None}

    @router.post(WORKSPACE + "/rotateEncryptionKey", summary="Put all secrets under a new encryption key")
    async def rotate_encryption_key() -> JsonObject:
        return {"reencrypted": await plane.database.run(plane.rotate_encryption_key)}

    @router.get(
        OPERATIONS + "/mfeOperationsStatus/{id}", summary="How a long-running operation stands", **documented(200, 404)
    )
    async def operation_status(id: str) -> Response:
        return render_operation(await plane.transact(lambda session: get_operation(session, id)))

    @router.get(
        OPERATIONS + "/mfeOperationResults/{id}",
        summary="202 while an operation runs, then 204",
        status_code=204,
        **documented(202, 204, 404),
    )
    async def operation_result(request: Request, id: str) -> Response:
        operation = await plane.transact(lambda session: get_operation(session, id))
        if operation.status is OperationStatus.IN_PROGRESS:
            location = f"{server_url(request, settings)}{quote(request.scope['path'])}?{request.url.query}"
            return Response(status_code=202, headers={"Location": location, "Retry-After": "1"})
        return Response(status_code=204)

    return router


def _create_metadata_router(settings: Settings) -> APIRouter:
    router = APIRouter(tags=["Cloud"])

    @router.get(METADATA, summary="The cloud, for ARM_CLOUD_METADATA_URL")
    async def cloud(request: Request) -> Response:
        url = server_url(request, settings)
        cloud = {
            "name": "Safelight",
            "portal": url,
            "resourceManager": url,
            "authentication": {"loginEndpoint": url, "audiences": [url]},
            "suffixes": {"storage": "core.local"},
        }
        return Response(json.dumps([cloud]), media_type="application/json")

    return router


def _error_body(_path: str, report: ErrorReport) -> ErrorBody:
    code = _CODES.get(report.status, "InternalServerError")
    return {
        "error": {
            "code": code,
            "message": report.message,
            "target": report.param,
            "details": [],
            "additionalInfo": [{"type": "ComponentName", "info": {"value": "managementfrontend"}}],
        }
    }


DIALECT = Dialect(
    name="azure",
    title="control plane",
    create_router=create_router,
    owns_path=lambda path: path.lower().startswith(_ROOTS),
    error_body=_error_body,
    is_open=lambda path: path == METADATA,
)
