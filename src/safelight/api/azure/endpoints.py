"""Azure's online endpoints: the resource, its keys and its tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from safelight.api.azure.auth_modes import AUTH_MODES
from safelight.api.azure.wire import (
    LOCATION,
    WORKSPACE,
    ArmModel,
    ArmPatch,
    JsonObject,
    Place,
    accepted,
    collection,
    documented,
    identity_of,
    place_of,
    read_body,
    system_data,
    with_operation,
    without_operation,
)
from safelight.control.endpoints.endpoints import (
    EndpointSpec,
    Keys,
    delete_endpoint,
    get_endpoint,
    list_endpoints,
    put_endpoint,
    read_token_key,
    regenerate_key,
    show_keys,
    spec_of,
)
from safelight.control.endpoints.tokens import issue_token
from safelight.control.endpoints.warnings import endpoint_warnings
from safelight.control.plane import ADMINISTRATOR, ControlPlane
from safelight.control.store.tables import Endpoint, Operation, OperationKind
from safelight.settings import Settings

ENDPOINTS = WORKSPACE + "/onlineEndpoints"
ENDPOINT = ENDPOINTS + "/{name}"


class EndpointKeys(ArmModel):
    """The user's own keys, on creation only."""

    primary_key: str | None = None
    secondary_key: str | None = None


class EndpointProperties(ArmModel):
    """What an endpoint is made of."""

    auth_mode: str = "Key"
    description: str | None = None
    properties: dict[str, str] | None = None
    traffic: dict[str, int] | None = None
    mirror_traffic: dict[str, int] | None = None
    public_network_access: str | None = None
    keys: EndpointKeys | None = None


class EndpointResource(ArmModel):
    """The body of a PUT."""

    location: str | None = None
    tags: dict[str, str] | None = None
    properties: EndpointProperties = EndpointProperties()


class ChangedIdentity(ArmPatch):
    """Every endpoint acts in its own name."""

    type: Literal["SystemAssigned", "systemAssigned"]


class ChangedEndpoint(ArmPatch):
    """What to change; each map but `properties`, to which is added, becomes what is given."""

    auth_mode: str | None = None
    description: str | None = None
    properties: dict[str, str] | None = None
    traffic: dict[str, int] | None = None
    mirror_traffic: dict[str, int] | None = None
    public_network_access: str | None = None


class EndpointPatch(ArmPatch):
    """The body of a PATCH."""

    tags: dict[str, str] | None = None
    identity: ChangedIdentity | None = None
    properties: ChangedEndpoint = ChangedEndpoint()


class RegenerateBody(ArmModel):
    """Which key; `keyValue` is the new one unless it is a current one."""

    key_type: Literal["Primary", "Secondary"]
    key_value: str | None = None


def create_router(plane: ControlPlane, settings: Settings) -> APIRouter:
    """The routes of endpoints."""
    router = APIRouter(tags=["Online endpoints"])

    @router.put(
        ENDPOINT,
        summary="Create or update an endpoint",
        status_code=201,
        **documented(200, 201, 409, body=EndpointResource),
    )
    async def put(request: Request, name: str) -> Response:
        spec = _spec(name, await read_body(request, EndpointResource, settings))
        place = place_of(request, settings)
        return begun(place, await plane.transact(lambda session: put_endpoint(session, plane.cipher, spec)))

    @router.patch(
        ENDPOINT,
        summary="Change an endpoint's traffic, tags, description or added properties",
        **documented(200, 404, 409, body=EndpointPatch),
    )
    async def patch(request: Request, name: str) -> Response:
        body = await read_body(request, EndpointPatch, settings)
        place = place_of(request, settings)
        return begun(
            place,
            await plane.transact(
                lambda session: put_endpoint(session, plane.cipher, _changed(get_endpoint(session, name), body))
            ),
        )

    def begun(place: Place, written: tuple[Endpoint, Operation]) -> Response:
        row, operation = written
        plane.wake()
        status = 201 if operation.kind is OperationKind.CREATE else 200
        return accepted(place, operation, _render(place, row, operation), status=status)

    @router.get(ENDPOINT, summary="Show an endpoint", **documented(200, 404))
    async def get(request: Request, name: str) -> JsonObject:
        place = place_of(request, settings)
        return _render(place, await plane.transact(lambda session: get_endpoint(session, name)))

    @router.get(ENDPOINTS, summary="List the endpoints")
    async def list_(request: Request) -> JsonObject:
        place = place_of(request, settings)
        return collection([_render(place, row) for row in await plane.transact(list_endpoints)])

    @router.delete(
        ENDPOINT, summary="Delete an endpoint with its deployments", status_code=202, **documented(202, 204, 409)
    )
    async def delete(request: Request, name: str) -> Response:
        place = place_of(request, settings)
        operation = await plane.transact(lambda session: delete_endpoint(session, name))
        if operation is None:
            return Response(status_code=204)
        plane.wake()
        return accepted(place, operation, None, status=202)

    _add_credentials(router, plane, settings)
    return router


def _add_credentials(router: APIRouter, plane: ControlPlane, settings: Settings) -> None:
    @router.post(ENDPOINT + "/listKeys", summary="Show an endpoint's keys", **documented(200, 400, 404))
    async def list_keys(name: str) -> JsonObject:
        return _render_keys(
            await plane.transact(lambda session: show_keys(session, plane.cipher, name, reader=ADMINISTRATOR))
        )

    @router.post(
        ENDPOINT + "/regenerateKeys",
        summary="Replace one of an endpoint's keys",
        **documented(200, 404, body=RegenerateBody),
    )
    async def regenerate_keys(request: Request, name: str) -> JSONResponse:
        body = await read_body(request, RegenerateBody, settings)
        key: Literal["primary", "secondary"] = "primary" if body.key_type == "Primary" else "secondary"
        keys = await plane.transact(
            lambda session: regenerate_key(session, plane.cipher, name, key, body.key_value, reader=ADMINISTRATOR)
        )
        await plane.publish(name)
        return JSONResponse(_render_keys(keys))

    @router.post(
        ENDPOINT + "/token", summary="A token for an endpoint with authMode AMLToken", **documented(200, 400, 404)
    )
    async def token(name: str) -> JsonObject:
        row, key = await plane.transact(
            lambda session: read_token_key(session, plane.cipher, name, reader=ADMINISTRATOR)
        )
        issued = issue_token(row.name, key)
        return {
            "accessToken": issued.text,
            "expiryTimeUtc": issued.expires_at,
            "refreshAfterTimeUtc": issued.refresh_after,
            "tokenType": "Bearer",
        }


def _spec(name: str, resource: EndpointResource) -> EndpointSpec:
    properties = resource.properties
    keys = properties.keys or EndpointKeys()
    return EndpointSpec(
        name=name,
        auth_mode=_auth_mode(properties.auth_mode),
        description=properties.description or "",
        location=resource.location or LOCATION,
        tags=resource.tags or {},
        properties=without_operation(properties.properties),
        traffic=properties.traffic or {},
        mirror_traffic=properties.mirror_traffic or {},
        public_network_access=properties.public_network_access or "Enabled",
        primary_key=keys.primary_key,
        secondary_key=keys.secondary_key,
    )


def _changed(row: Endpoint, body: EndpointPatch) -> EndpointSpec:
    """The endpoint with what the body names; another `auth_mode` is refused where an endpoint is written."""
    spec, given = spec_of(row), body.properties
    return replace(
        spec,
        tags=spec.tags if body.tags is None else body.tags,
        auth_mode=spec.auth_mode if given.auth_mode is None else _auth_mode(given.auth_mode),
        description=spec.description if given.description is None else given.description,
        properties={**spec.properties, **without_operation(given.properties)},
        traffic=spec.traffic if given.traffic is None else given.traffic,
        mirror_traffic=spec.mirror_traffic if given.mirror_traffic is None else given.mirror_traffic,
        public_network_access=given.public_network_access or spec.public_network_access,
    )


def _auth_mode(azure: str) -> str:
    return next((mode for mode, each in AUTH_MODES.items() if each.lower() == azure.lower()), azure)


def _render(place: Place, row: Endpoint, operation: Operation | None = None) -> JsonObject:
    url = f"{place.url}/endpoints/{row.name}"
    return {
        "id": f"{place.path}/onlineEndpoints/{row.name}",
        "name": row.name,
        "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints",
        "location": row.location,
        "tags": row.tags,
        "kind": "Managed",
        "identity": identity_of(row.name),
        "systemData": system_data(row.created_at, row.updated_at),
        "properties": {
            "authMode": AUTH_MODES[row.auth_mode],
            "description": row.description or None,
            "properties": row.properties if operation is None else with_operation(row.properties, place, operation),
            "traffic": row.traffic,
            "mirrorTraffic": row.mirror_traffic,
            "publicNetworkAccess": row.public_network_access,
            "provisioningState": row.provisioning_state.value,
            "scoringUri": f"{url}/score",
            "swaggerUri": f"{url}/openapi.json",
            "warnings": endpoint_warnings(row.public_network_access),
        },
    }


def _render_keys(keys: Keys) -> JsonObject:
    return {"primaryKey": keys.primary, "secondaryKey": keys.secondary}
