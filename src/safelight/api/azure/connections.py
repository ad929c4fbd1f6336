"""Azure's workspace connections: written with their secrets, shown without; `listsecrets` alone returns them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import Field

from safelight.api.azure.wire import (
    WORKSPACE,
    ArmModel,
    JsonObject,
    collection,
    documented,
    read_body,
    system_data,
    workspace_path,
)
from safelight.control.plane import ADMINISTRATOR, ControlPlane
from safelight.control.secrets.connections import (
    API_KEY,
    CUSTOM_KEYS,
    ConnectionChange,
    ConnectionSpec,
    change_connection,
    delete_connection,
    get_connection,
    list_connections,
    list_secret_reads,
    put_connection,
    read_secrets,
)
from safelight.control.store.tables import Connection
from safelight.errors import InvalidRequest
from safelight.settings import Settings

CONNECTIONS = WORKSPACE + "/connections"


class Credentials(ArmModel):
    """`keys` of a CustomKeys connection, `key` of an ApiKey one."""

    keys: dict[str, str] | None = Field(None, repr=False)
    key: str | None = Field(None, repr=False)


class ConnectionProperties(ArmModel):
    """What a connection is made of."""

    category: str = CUSTOM_KEYS
    auth_type: str = CUSTOM_KEYS
    target: str | None = None
    metadata: dict[str, str] | None = None
    is_shared_to_all: bool | None = None
    credentials: Credentials | None = None


class ConnectionResource(ArmModel):
    """The body of a PUT."""

    properties: ConnectionProperties


class ChangedProperties(ArmModel):
    """What to change; the rest, and every secret that is not named, stays as it is."""

    category: str | None = None
    auth_type: str | None = None
    target: str | None = None
    metadata: dict[str, str] | None = None
    is_shared_to_all: bool | None = None
    credentials: Credentials | None = None


class ConnectionPatch(ArmModel):
    """The body of a PATCH."""

    properties: ChangedProperties


def create_router(plane: ControlPlane, settings: Settings) -> APIRouter:
    """The routes of connections."""
    router = APIRouter(tags=["Connections"])

    @router.put(
        CONNECTIONS + "/{name}", summary="Create or replace a connection", **documented(200, body=ConnectionResource)
    )
    async def put(request: Request, name: str) -> JsonObject:
        spec = _spec(name, (await read_body(request, ConnectionResource, settings)).properties)
        row = await plane.transact(lambda session: put_connection(session, plane.cipher, spec))
        return _render(workspace_path(request), row)

    @router.patch(
        CONNECTIONS + "/{name}",
        summary="Change a connection; secrets that are left out keep their values",
        **documented(200, 404, body=ConnectionPatch),
    )
    async def patch(request: Request, name: str) -> JsonObject:
        change = _change((await read_body(request, ConnectionPatch, settings)).properties)
        reader = f"{ADMINISTRATOR}, to change it"
        row = await plane.transact(
            lambda session: change_connection(session, plane.cipher, name, change, reader=reader)
        )
        return _render(workspace_path(request), row)

    @router.get(CONNECTIONS + "/{name}", summary="Show a connection, without its secrets", **documented(200, 404))
    async def get(request: Request, name: str) -> JsonObject:
        return _render(workspace_path(request), await plane.transact(lambda session: get_connection(session, name)))

    @router.get(CONNECTIONS, summary="List the connections, without their secrets")
    async def list_(request: Request, category: str | None = None, target: str | None = None) -> JsonObject:
        rows = await plane.transact(list_connections)
        workspace = workspace_path(request)
        wanted = [row for row in rows if category in (None, row.category) and target in (None, row.target)]
        return collection([_render(workspace, row) for row in wanted])

    @router.delete(CONNECTIONS + "/{name}", summary="Delete a connection", **documented(200, 204))
    async def delete(name: str) -> Response:
        existed = await plane.transact(lambda session: delete_connection(session, name))
        return Response(status_code=200 if existed else 204)

    _add_secrets(router, plane)
    return router


def _add_secrets(router: APIRouter, plane: ControlPlane) -> None:
    @router.post(
        CONNECTIONS + "/{name}/listsecrets", summary="Show a connection with its secrets", **documented(200, 404)
    )
    async def list_secrets(request: Request, name: str) -> JsonObject:
        row, credentials = await plane.transact(
            lambda session: read_secrets(session, plane.cipher, name, reader=ADMINISTRATOR)
        )
        return _render(workspace_path(request), row, credentials)

    @router.get(WORKSPACE + "/secretReads", summary="Who read which secret, newest first")
    async def audit() -> JsonObject:
        lines = await plane.transact(list_secret_reads)
        return collection(
            [
                {
                    "readAt": line.read_at.isoformat(),
                    "reader": line.reader,
                    "connection": line.connection_name,
                    "part": line.part,
                }
                for line in lines
            ]
        )


def _spec(name: str, properties: ConnectionProperties) -> ConnectionSpec:
    if properties.auth_type not in (CUSTOM_KEYS, API_KEY):
        raise InvalidRequest(
            f"authType {properties.auth_type!r} is not supported; use {CUSTOM_KEYS} or {API_KEY}", field="authType"
        )
    return ConnectionSpec(
        name=name,
        category=properties.category,
        auth_type=properties.auth_type,
        target=properties.target or "_",
        labels=properties.metadata or {},
        is_shared=properties.is_shared_to_all is not False,
        credentials=_secrets(properties.credentials),
    )


def _change(properties: ChangedProperties) -> ConnectionChange:
    return ConnectionChange(
        category=properties.category,
        auth_type=properties.auth_type,
        target=properties.target,
        labels=properties.metadata,
        is_shared=properties.is_shared_to_all,
        credentials=_secrets(properties.credentials),
    )


def _secrets(given: Credentials | None) -> dict[str, str]:
    if given is None:
        return {}
    return dict(given.keys or {}) | ({} if given.key is None else {"key": given.key})


def _render(workspace: str, row: Connection, credentials: dict[str, str] | None = None) -> JsonObject:
    shown: JsonObject | None = None
    if credentials is not None:
        shown = {"key": credentials["key"]} if row.auth_type == API_KEY else {"keys": credentials}
    return {
        "id": f"{workspace}/connections/{row.name}",
        "name": row.name,
        "type": "Microsoft.MachineLearningServices/workspaces/connections",
        "properties": {
            "authType": row.auth_type,
            "category": row.category,
            "credentials": shown,
            "target": row.target,
            "metadata": row.labels,
            "isSharedToAll": row.is_shared,
            "expiryTime": None,
            "sharedUserList": [],
        },
        "systemData": system_data(row.created_at, row.updated_at),
    }
