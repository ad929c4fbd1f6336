"""The workspace's models: those of the catalogue, and those that users register, by name and by version."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request

from safelight.api.azure.models import (
    ModelResource,
    list_newest,
    list_versions,
    refused_template,
    render_model,
    render_version,
)
from safelight.api.azure.wire import WORKSPACE, JsonObject, documented, read_body, workspace_path
from safelight.control.endpoints.registered_models import list_registered_models, register_model
from safelight.control.plane import ControlPlane
from safelight.errors import ResourceNotFound
from safelight.model.catalog import Model, find_model, list_models, versions_of
from safelight.settings import Settings

MODELS = WORKSPACE + "/models"
MODEL = MODELS + "/{name}"
VERSION = MODEL + "/versions/{version}"
_SCHEME = "azureml:"


def bare_name(name: str) -> str:
    """Of `azureml:NAME@latest` the SDK leaves `azureml:` before the name when it asks for the versions."""
    return name[len(_SCHEME) :] if name.lower().startswith(_SCHEME) else name


def create_router(plane: ControlPlane, settings: Settings) -> APIRouter:
    """The routes of the workspace's models."""
    router = APIRouter(tags=["Models"])

    @router.put(
        VERSION,
        summary="Register a model: a folder on this machine, or a hub id",
        **documented(200, 409, 503, body=ModelResource),
    )
    async def put(request: Request, name: str, version: str) -> JsonObject:
        properties = (await read_body(request, ModelResource, settings)).properties
        if properties.default_deployment_template or properties.allowed_deployment_templates:
            raise refused_template("a deployment says itself how the model is served")
        model = await plane.transact(
            lambda session: register_model(
                session,
                name=name,
                path=properties.model_uri,
                version=None if version == "next" else version,
                description=properties.description or "",
            )
        )
        return render_version(model, workspace=workspace_path(request))

    @router.get(VERSION, summary="Show a version of a model of the workspace", **documented(200, 404))
    async def get(request: Request, name: str, version: str) -> JsonObject:
        registered = await plane.transact(list_registered_models)
        model = find_model(f"azureml:{bare_name(name)}:{version}", registered)
        return render_version(model, workspace=workspace_path(request))

    @router.get(MODEL + "/versions", summary="List the versions of a model, newest first", **documented(200, 400, 404))
    async def versions(request: Request, name: str) -> JsonObject:
        return list_versions(request, await all_of(name), workspace=workspace_path(request))

    @router.get(MODEL, summary="Show a model, and which version is its latest", **documented(200, 404))
    async def latest(request: Request, name: str) -> JsonObject:
        return render_model((await all_of(name))[-1], workspace=workspace_path(request))

    @router.get(MODELS, summary="List the models of the catalogue and of the workspace, each with its latest version")
    async def list_(request: Request) -> JsonObject:
        models = (*list_models(), *await plane.transact(list_registered_models))
        return list_newest(request, models, workspace=workspace_path(request))

    async def all_of(name: str) -> Sequence[Model]:
        models = versions_of(bare_name(name), [*list_models(), *await plane.transact(list_registered_models)])
        if not models:
            raise ResourceNotFound(f"no model {name[:256]!r}; see `safelight model list`")
        return models

    return router
