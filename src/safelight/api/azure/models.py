"""A model as Azure shows it: what of the catalogue and of the workspace alike is on the wire."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import Request

from safelight.api.azure.wire import ArmModel, JsonObject, collection, system_data
from safelight.control.store.tables import utc_now
from safelight.errors import InvalidRequest
from safelight.model.catalog import Model

TEMPLATE_PROPERTY = "azureml.deploymentTemplateOverride"
"""Of a deployment's own properties: the template that it takes in place of its model's."""
_FILTERS = ("$skip", "offset", "tags", "properties", "stage", "description", "feed")
"""Of Azure's listings of versions. What would list less than everything is not left out in silence."""


class TemplateReference(ArmModel):
    """A deployment template of a registry."""

    asset_id: str | None = None


class ModelProperties(ArmModel):
    """What a registered model is made of."""

    model_uri: str
    description: str | None = None
    default_deployment_template: TemplateReference | None = None
    allowed_deployment_templates: list[TemplateReference] | None = None


class ModelResource(ArmModel):
    """The body of a PUT."""

    properties: ModelProperties


def refused_template(instead: str) -> InvalidRequest:
    """Templates name containers, ports and probes of Azure's own images."""
    return InvalidRequest(
        f"deployment templates are not read here: leave the template out; {instead}", field="deploymentTemplate"
    )


def list_versions(request: Request, models: Iterable[Model], *, workspace: str | None = None) -> JsonObject:
    """Newest first, as many as `$top` says. `models` are of one name, oldest first. Raises InvalidRequest."""
    query = request.query_params
    if unread := next((name for name in _FILTERS if query.get(name)), None):
        raise InvalidRequest(f"versions are not listed by {unread}; leave it out, and choose among all", field=unread)
    order = query.get("$orderBy", "createdtime desc").lower().split()
    if order not in (["createdtime", "desc"], ["createdtime", "asc"], ["createdtime"]):
        raise InvalidRequest("$orderBy must be 'createdtime desc' or 'createdtime asc'", field="$orderBy")
    rows = [model for model in models if query.get("version", model.version) == model.version]
    rows = _viewed(request, rows[::-1] if order[-1] == "desc" else rows)
    return collection([render_version(model, workspace=workspace) for model in rows[: _top(query.get("$top"))]])


def list_newest(request: Request, models: Iterable[Model], *, workspace: str | None = None) -> JsonObject:
    """Each model once, with the last of its versions. `models` are oldest first."""
    newest = {model.name: model for model in models}
    return collection([render_model(model, workspace=workspace) for model in _viewed(request, [*newest.values()])])


def _viewed(request: Request, models: list[Model]) -> list[Model]:
    """Nothing is ever archived, as the SDK spells it: `ArchivedOnly`, or its own name for that."""
    view = request.query_params.get("listViewType", "").lower().replace("_", "")
    return [] if view.endswith("archivedonly") else models


def _top(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) == 0:
        raise InvalidRequest(f"$top must be a number above 0, not {text[:32]!r}", field="$top")
    return int(text)


def render_model(model: Model, *, workspace: str | None = None) -> JsonObject:
    """The model by its name; `model` is its newest version."""
    shown = render_version(model, workspace=workspace)
    return shown | {"id": str(shown["id"]).rpartition("/versions/")[0], "name": model.name}


def render_version(model: Model, *, workspace: str | None = None) -> JsonObject:
    """One version, of a registry or of the workspace of that path."""
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
        "name": model.version,
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
