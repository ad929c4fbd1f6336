"""Azure's registries: how the SDK discovers them, and the models in them; also the workspace's own models."""

from __future__ import annotations

from fastapi import APIRouter, Request

from safelight.api.azure.wire import (
    LOCATION,
    WORKSPACE,
    ArmModel,
    JsonObject,
    collection,
    documented,
    read_body,
    system_data,
    workspace_path,
)
from safelight.api.http.links import server_url
from safelight.control.endpoints.registered_models import list_registered_models, register_model
from safelight.control.plane import ControlPlane
from safelight.control.store.tables import utc_now
from safelight.errors import ResourceNotFound
from safelight.model.catalog import Model, find_model, list_models
from safelight.settings import Settings

_IN_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.MachineLearningServices"
REGISTRY_MODELS = tuple(
    f"{prefix}{_IN_GROUP}/registries/{{registry}}/models" for prefix in ("", "/mferp/managementfrontend")
)
NOWHERE = "00000000-0000-0000-0000-000000000000"


class ModelProperties(ArmModel):
    """What a registered model is made of."""

    model_uri: str
    description: str | None = None


class ModelResource(ArmModel):
    """The body of a PUT."""

    properties: ModelProperties


def create_router(plane: ControlPlane, settings: Settings) -> APIRouter:
    """The routes of registries and models."""
    router = APIRouter(tags=["Models"])

    @router.get("/registrymanagement/v1.0/registries/{registry}/discovery", summary="Where a registry is")
    async def discovery(request: Request, registry: str) -> JsonObject:
        return {
            "registryName": registry,
            "primaryRegionResourceProviderUri": f"{server_url(request, settings)}/",
            "primaryRegion": LOCATION,
            "resourceGroup": "safelight",
            "subscriptionId": NOWHERE,
            "additionalRegions": [],
        }

    async def list_(request: Request, registry: str) -> JsonObject:
        return collection([_render(request, model) for model in _models_of(registry)])

    async def versions(request: Request, registry: str, name: str) -> JsonObject:
        return collection([_render(request, _find(registry, name))])

    async def version(request: Request, registry: str, name: str, version: str) -> JsonObject:
        return _render(request, _find(registry, name, version))

    for path in REGISTRY_MODELS:
        router.add_api_route(path, list_, summary="List the models of a registry", **documented(200, 404))
        router.add_api_route(
            f"{path}/{{name}}/versions",
            versions,
            summary="List the versions of a model, newest first",
            **documented(200, 404),
        )
        router.add_api_route(
            f"{path}/{{name}}/versions/{{version}}",
            version,
            summary="Show a model of a registry",
            **documented(200, 404),
        )
    _add_workspace_models(router, plane, settings)
    return router


def _add_workspace_models(router: APIRouter, plane: ControlPlane, settings: Settings) -> None:
    path = WORKSPACE + "/models/{name}/versions/{version}"

    @router.put(
        path,
        summary="Register a model: a folder on this machine, or a hub id",
        **documented(200, 409, 503, body=ModelResource),
    )
    async def put(request: Request, name: str, version: str) -> JsonObject:
        properties = (await read_body(request, ModelResource, settings)).properties
        model = await plane.transact(
            lambda session: register_model(
                session,
                name=name,
                path=properties.model_uri,
                version=None if version == "next" else version,
                description=properties.description or "",
            )
        )
        return _render(request, model, workspace=workspace_path(request))

    @router.get(path, summary="Show a model of the workspace", **documented(200, 404))
    async def get(request: Request, name: str, version: str) -> JsonObject:
        registered = await plane.transact(list_registered_models)
        model = find_model(f"azureml:{name}:{version}", registered)
        return _render(request, model, workspace=workspace_path(request))

    @router.get(WORKSPACE + "/models", summary="List the models of the catalogue and of the workspace")
    async def list_(request: Request) -> JsonObject:
        registered = await plane.transact(list_registered_models)
        workspace = workspace_path(request)
        return collection([_render(request, model, workspace=workspace) for model in (*list_models(), *registered)])


def _models_of(registry: str) -> list[Model]:
    models = [model for model in list_models() if model.registry.lower() == registry.lower()]
    if not models:
        known = ", ".join(sorted({model.registry for model in list_models()}))
        raise ResourceNotFound(f"no registry '{registry[:64]}' here; there is {known}")
    return models


def _find(registry: str, name: str, version: str | None = None) -> Model:
    version = f"versions/{version}" if version else "labels/latest"
    return find_model(f"azureml://registries/{registry}/models/{name}/{version}")


def _render(request: Request, model: Model, *, workspace: str | None = None) -> JsonObject:
    is_version = "/versions" in request.scope["path"].lower()
    now = utc_now()
    hub_page = f"https://huggingface.co/{model.hub_id}" + (f"/tree/{model.revision}" if model.revision else "")
    tags = {
        "provider": model.provider,
        "license": model.spec.license if model.spec else "",
        "lastUpdated": model.last_updated,
        "accessPage": model.access_page,
    }
    return {
        "id": model.uri if workspace is None else f"{workspace}/models/{model.name}/versions/{model.version}",
        "name": model.version if is_version else model.name,
        "type": "Microsoft.MachineLearningServices/registries/models/versions",
        "properties": {
            "description": model.description,
            "tags": {name: value for name, value in tags.items() if value},
            "properties": {"isGated": str(model.is_gated).lower(), "hubId": model.hub_id or ""},
            "isArchived": False,
            "isAnonymous": False,
            "latestVersion": model.version,
            "modelType": "custom_model",
            "modelUri": hub_page if model.hub_id else str(model.folder or ""),
            "flavors": {},
        },
        "systemData": system_data(now, now),
    }
