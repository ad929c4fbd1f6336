"""Azure's registries: how the SDK discovers them, and the models in them."""

from __future__ import annotations

from fastapi import APIRouter, Request

from safelight.api.azure.models import list_newest, list_versions, render_model, render_version
from safelight.api.azure.wire import LOCATION, JsonObject, documented
from safelight.api.http.links import server_url
from safelight.errors import InvalidRequest, ResourceNotFound
from safelight.model.catalog import Model, find_model, list_models
from safelight.settings import Settings

_IN_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.MachineLearningServices"
REGISTRY_MODELS = tuple(
    f"{prefix}{_IN_GROUP}/registries/{{registry}}/models" for prefix in ("", "/mferp/managementfrontend")
)
NOWHERE = "00000000-0000-0000-0000-000000000000"


def create_router(settings: Settings) -> APIRouter:
    """The routes of registries."""
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
        return list_newest(request, _models_of(registry))

    async def latest(registry: str, name: str) -> JsonObject:
        return render_model(_find(registry, name))

    async def versions(request: Request, registry: str, name: str) -> JsonObject:
        return list_versions(request, [_find(registry, name)])

    async def version(registry: str, name: str, version: str) -> JsonObject:
        return render_version(_find(registry, name, version))

    for path in REGISTRY_MODELS:
        router.add_api_route(path, list_, summary="List the models of a registry", **documented(200, 404))
        router.add_api_route(
            f"{path}/{{name}}",
            latest,
            summary="Show a model of a registry, and which version is its latest",
            **documented(200, 404),
        )
        router.add_api_route(
            f"{path}/{{name}}/versions",
            versions,
            summary="List the versions of a model, newest first",
            **documented(200, 400, 404),
        )
        router.add_api_route(
            f"{path}/{{name}}/versions/{{version}}",
            version,
            summary="Show a version of a model of a registry",
            **documented(200, 404),
        )
    _refuse_writes(router)
    return router


def _refuse_writes(router: APIRouter) -> None:
    async def refuse(registry: str) -> JsonObject:
        raise InvalidRequest(
            f"registry {registry[:64]!r} is only read here, and keeps no models, environments or deployment templates; "
            "register a model in the workspace with `safelight model create`",
            field="registry",
        )

    for path in REGISTRY_MODELS:
        router.add_api_route(
            path.removesuffix("models") + "{asset:path}",
            refuse,
            methods=["PUT", "POST", "PATCH", "DELETE"],
            summary="Refused: registries are only read",
            include_in_schema=False,
        )


def _models_of(registry: str) -> list[Model]:
    models = [model for model in list_models() if model.registry.lower() == registry.lower()]
    if not models:
        known = ", ".join(sorted({model.registry for model in list_models()}))
        raise ResourceNotFound(f"no registry '{registry[:64]}' here; there is {known}")
    return models


def _find(registry: str, name: str, version: str | None = None) -> Model:
    version = f"versions/{version}" if version else "labels/latest"
    return find_model(f"azureml://registries/{registry}/models/{name}/{version}")
