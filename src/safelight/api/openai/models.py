"""The names that a request may call the model by: its own, aliases, and on an endpoint those of the deployments."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from fastapi import Request
from pydantic import BaseModel

from safelight.api.http.bodies.body import is_form, read_bytes, read_form
from safelight.api.http.bodies.strict_json import in_thread_if_long
from safelight.errors import ConfigurationError, ModelNotFound
from safelight.model.spec import ModelSpec
from safelight.settings import DeploymentSettings, Settings

ANY = "*"


class ModelObject(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The deployments of the endpoint that a request came to, as the gateway puts them into the request's state."""

    own: str
    """The name of the one that answers."""
    models: Mapping[str, str | None] = field(default_factory=dict)
    """The id of each one's model; None while its replicas start."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The names that the served model answers to."""

    name: str
    hub_id: str | None
    created: int
    aliases: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        return self.hub_id or self.name

    def check(self, request: Request, wanted: str | None) -> None:
        """Raises ModelNotFound unless `wanted` is one of the names, or none is wanted."""
        if not wanted:
            return
        neighbours = _neighbours_of(request)
        names = [*([neighbours.own] if neighbours else []), *_names(self.name, self.hub_id)]
        is_other = neighbours is not None and wanted.lower() in {name.lower() for name in neighbours.models} - {
            neighbours.own.lower()
        }
        if _is_among(wanted, names) or (not is_other and self._is_alias(wanted)):
            return
        has = ", ".join([*names, *sorted(self.aliases)])
        raise ModelNotFound(
            f"The model `{_shortened(wanted)}` does not exist here; this server has: {has}", field="model"
        )

    def objects(self, request: Request) -> list[ModelObject]:
        """All that may be named: deployments first, then models, then aliases."""
        neighbours = _neighbours_of(request)
        deployments = {} if neighbours is None else neighbours.models
        models = sorted({each for each in deployments.values() if each is not None}) or [self.id]
        names = dict.fromkeys([*sorted(deployments), *models, *sorted(self.aliases - {ANY})])
        return [ModelObject(id=name, created=self.created, owned_by=_owner(name)) for name in names]

    def object(self, request: Request, wanted: str) -> ModelObject:
        """The one of this name. Raises ModelNotFound."""
        known = next((each for each in self.objects(request) if each.id.lower() == wanted.lower()), None)
        if known is not None:
            return known
        self.check(request, wanted)
        return ModelObject(id=self.id, created=self.created, owned_by=_owner(self.id))

    def _is_alias(self, wanted: str) -> bool:
        return ANY in self.aliases or wanted.lower() in self.aliases


def served_model(settings: DeploymentSettings, spec: ModelSpec) -> ServedModel:
    """The names of `spec` by these settings. Raises ConfigurationError for an alias of another model."""
    hub_id = _hub_id(settings.model)
    aliases = read_aliases(settings.model_aliases, _names(spec.name, hub_id))
    return ServedModel(spec.name, hub_id, int(time.time()), aliases)


async def named_in_body(request: Request, settings: Settings, *, max_bytes: int) -> str | None:
    """The `model` of a JSON body or a form, whatever else is in it; None if there is none.

    Raises InvalidRequest, or one of its kinds, if the body cannot be read.
    """
    timeout_s = settings.request_timeout_s
    if is_form(request):
        form = await read_form(
            request, max_bytes=max_bytes, max_field_bytes=settings.max_body_bytes, timeout_s=timeout_s
        )
        return form.fields.get("model")
    content = await read_bytes(request, max_bytes=max_bytes, timeout_s=timeout_s)
    try:
        return (await in_thread_if_long(len(content), _named_in, content)).model
    except msgspec.DecodeError:
        return None


class _Named(msgspec.Struct):
    model: str | None = None


def _named_in(content: bytes) -> _Named:
    return msgspec.json.decode(content, type=_Named)


def read_aliases(entries: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    """The aliases in `ALIAS=MODEL`, in lower case. Raises ConfigurationError where MODEL is none of the `names`.

    It does not repeat what was written: a deployment's secret may stand there.
    """
    aliases = set()
    for number, entry in enumerate(entries, start=1):
        alias, _, model = entry.partition("=")
        if not _is_among(model, names):
            which = f"model alias {number} of {len(entries)}"
            raise ConfigurationError(f"{which} is of a model that is not here; there is {', '.join(names)}")
        aliases.add(alias.lower())
    return frozenset(aliases)


def _neighbours_of(request: Request) -> Neighbours | None:
    """None: the request came to the server's own model."""
    neighbours: Neighbours | None = getattr(request.state, "neighbours", None)
    return neighbours


def _names(name: str, hub_id: str | None) -> list[str]:
    return [name, *([hub_id] if hub_id else [])]


def _is_among(wanted: str, names: Sequence[str]) -> bool:
    return _catalogue_name(wanted) in map(_catalogue_name, names)


def _owner(name: str) -> str:
    return name.split("/", maxsplit=1)[0] if "/" in name else "safelight"


def _shortened(name: str) -> str:
    return name if len(name) <= 128 else f"{name[:128]}…"


def _hub_id(model: str) -> str | None:
    match = re.fullmatch(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(@\S+)?", model)
    return None if match is None else match[1]


def _catalogue_name(model: str) -> str:
    """Azure's registry name of a hub id: `black-forest-labs/FLUX.1-schnell` is `black-forest-labs-flux.1-schnell`."""
    return model.replace("/", "-").replace("_", "-").lower()
