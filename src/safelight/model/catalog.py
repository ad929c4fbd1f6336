"""The catalogue: the models that Safelight knows by name; how a name, a folder, a hub id or a URI becomes a model."""

from __future__ import annotations

import importlib.resources
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from safelight.errors import ModelNotFound
from safelight.model.checkpoint import read_model_spec
from safelight.model.other_formats import explain_file, looks_like_path
from safelight.model.revision import newest_snapshot
from safelight.model.spec import Guidance, ModelSpec, folder_name, registry_name

HUGGING_FACE_REGISTRY = "HuggingFace"
SAFELIGHT_REGISTRY = "Safelight"
REGISTERED_HERE = "registered here"

FLUX_SCHNELL = ModelSpec(
    name="black-forest-labs-flux.1-schnell",
    version="1",
    description="FLUX.1 [schnell]: 12 billion parameters, 1 to 4 steps, distilled from FLUX.1 [pro]",
    license="Apache-2.0",
    default_num_inference_steps=4,
    max_num_inference_steps=50,
    default_width=1024,
    default_height=1024,
    min_size=64,
    max_size=2048,
    max_pixels=2048 * 2048,
    size_multiple=16,
    max_sequence_length=256,
    guidance=Guidance.NONE,
    default_guidance_scale=0.0,
    examples=("Astronaut riding a horse", "A cat holding a sign that says hello world"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that can be served: where its files are, and its spec where that is known before they are there."""

    name: str
    version: str = "1"
    folder: Path | None = None
    hub_id: str | None = None
    revision: str | None = None
    """Of the hub: a commit, tag or branch; None: its newest."""
    is_gated: bool = False
    provider: str = ""
    registry: str = ""
    """The registry whose `azureml://` URIs name it."""
    is_registered: bool = False
    """By the user, in the workspace."""
    description: str = ""
    last_updated: str = ""
    num_parameters: Mapping[str, int] = field(default_factory=dict)
    """Component -> weights, where they are known before the files are there."""
    spec: ModelSpec | None = None

    @property
    def uri(self) -> str:
        """What a deployment names it by."""
        if self.registry:
            return f"azureml://registries/{self.registry}/models/{self.name}/versions/{self.version}"
        if self.is_registered:
            return f"azureml:{self.name}:{self.version}"
        if self.hub_id is None:
            return str(self.folder)
        return f"{self.hub_id}@{self.revision}" if self.revision else self.hub_id

    @property
    def access_page(self) -> str | None:
        """Where a gated model's access is requested."""
        return f"https://huggingface.co/{self.hub_id}" if self.is_gated and self.hub_id else None


def registered_model(*, name: str, version: str, path: str, description: str = "") -> Model:
    """A model that the user has registered. `path` is an absolute folder, or what `find_hub_model` reads."""
    if Path(path).is_absolute():
        return Model(
            name=name,
            version=version,
            folder=Path(path),
            provider=REGISTERED_HERE,
            is_registered=True,
            description=description,
        )
    known = find_hub_model(path) or Model(name=name, hub_id=path)
    return replace(
        known,
        name=name,
        version=version,
        provider=REGISTERED_HERE,
        registry="",
        is_registered=True,
        description=description or known.description,
    )


def sprite_folder() -> Path:
    """The folder of the embedded model inside the installed package."""
    return Path(str(importlib.resources.files("safelight"))) / "models" / "sprite"


def list_models() -> tuple[Model, ...]:
    """The models known by name, the embedded one first."""
    return (
        Model(name="sprite", folder=sprite_folder(), provider="Safelight", registry=SAFELIGHT_REGISTRY),
        Model(
            name=FLUX_SCHNELL.name,
            hub_id="black-forest-labs/FLUX.1-schnell",
            is_gated=True,
            provider="Hugging Face",
            registry=HUGGING_FACE_REGISTRY,
            description=FLUX_SCHNELL.description,
            last_updated="January 2026",
            num_parameters={
                "transformer": 11_891_178_560,
                "text_encoder": 123_060_480,
                "text_encoder_2": 4_762_310_656,
                "vae": 83_819_683,
            },
            spec=FLUX_SCHNELL,
        ),
    )


MAX_PATH_CHARACTERS = 4096
"""As on Linux; what resolves a path takes the square of its length."""
_HUB_REFERENCE = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[A-Za-z0-9][\w.-]*(?:/[\w-][\w.-]*)*))?", re.ASCII
)
_REFERENCES = (
    re.compile(
        r"azureml://registries/(?P<registry>[^/]+)/models/(?P<name>[^/]+)/(?:versions/(?P<version>[^/]+)|labels/(?P<label>[^/]+))",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:azureml:)?/subscriptions/.+/workspaces/[^/]+/models/(?:azureml:)?(?P<name>[^/]+)/(?:versions/(?P<version>[^/]+)|labels/(?P<label>[^/]+))",
        re.IGNORECASE,
    ),
    re.compile(r"azureml:(?P<name>[^/:@]+)(?::(?P<version>[^/:@]+)|@(?P<label>[^/:@]+))?", re.IGNORECASE),
)


def find_model(reference: str, registered: Sequence[Model] = ()) -> Model:
    """The model for `azureml://registries/…`, `azureml:NAME:VERSION`, a name, a folder, or `org/name[@REVISION]`.

    A hub id is matched to the catalogue by Azure's rule: `/` and `_` become `-`, in lower case. `registered` are the
    user's own models; of several versions the newest comes last. A path that exists is never a hub id.
    Raises ModelNotFound with the remedy, ModelLoadError for a cache of the hub without its newest revision.
    """
    match = next((found for each in _REFERENCES if (found := each.fullmatch(reference))), None)
    if match is None:
        return _named(reference, registered)
    parts = match.groupdict()
    label, registry = parts.get("label"), parts.get("registry")
    if label not in (None, "latest"):
        raise ModelNotFound(f"model label {label!r} is not known; use labels/latest or a version", field="model")
    models = [
        model
        for model in (*list_models(), *registered)
        if registry is None or model.registry.lower() == registry.lower()
    ]
    return _of_version(reference, versions_of(parts["name"], models), parts["version"])


def versions_of(name: str, models: Sequence[Model]) -> list[Model]:
    """Those of that name, or of what Azure's rule makes of it, in their order."""
    exact = [model for model in models if model.name == name]
    return exact or [model for model in models if model.name == registry_name(name)]


def name_in(reference: str) -> str | None:
    """The name of a registered model that a reference has; None for folders and hub ids."""
    match = next((found for each in _REFERENCES if (found := each.fullmatch(reference))), None)
    name = reference if match is None else match["name"]
    return name if re.fullmatch(r"[\w.-]{1,128}", name) else None


def _named(name: str, registered: Sequence[Model]) -> Model:
    named = [model for model in registered if model.name == name]
    if named:
        return named[-1]
    known_model = next((model for model in list_models() if registry_name(name) == model.name), None)
    if known_model is not None and ("/" not in name or find_path(name) is None):
        return known_model
    folder = find_folder(name)
    if folder is not None:
        return Model(name=folder_name(folder), folder=folder)
    if looks_like_path(name):
        raise ModelNotFound(f"no model {name!r}: there is no such file or folder", field="model")
    hub_model = find_hub_model(name)
    if hub_model is not None:
        return hub_model
    known = ", ".join(model.name for model in list_models())
    raise ModelNotFound(
        f"no model {name!r}: give one of {known}, a folder in the diffusers layout, a hub id such as "
        "black-forest-labs/FLUX.1-schnell (with @REVISION for another than the newest), or what `safelight model "
        "create` has registered",
        field="model",
    )


def find_path(name: str) -> Path | None:
    """What is there under that path, if anything is. Raises ModelNotFound where that may not be seen."""
    if len(name) > MAX_PATH_CHARACTERS:
        return None
    try:
        path = Path(name).expanduser().resolve()
        return path if path.exists() else None
    except PermissionError as error:
        raise ModelNotFound(f"{name} cannot be read: {error.strerror}", field="model") from None
    except (OSError, RuntimeError, ValueError):  # no path at all: too long, a home of nobody, a zero in it
        return None


def find_folder(name: str) -> Path | None:
    """The folder of that path, if there is one; of a model in the hub's cache its newest snapshot.

    Raises ModelNotFound for a file, saying what it is, ModelLoadError for a cache without its newest revision.
    """
    path = find_path(name)
    if path is None:
        return None
    if not path.is_dir():
        raise ModelNotFound(f"{path} {explain_file(path)}", field="model")
    if not str(path).isprintable() and os.fsencode(path) != str(path).encode(errors="replace"):
        raise ModelNotFound(f"{path} has bytes in its name that are no UTF-8; rename it", field="model")
    try:
        return newest_snapshot(path)
    except OSError as error:
        raise ModelNotFound(f"{path} cannot be read: {error.strerror}", field="model") from None


def _of_version(reference: str, candidates: Sequence[Model], version: str | None) -> Model:
    matching = [model for model in candidates if version in (None, model.version)]
    if matching:
        return matching[-1]
    if candidates:
        versions = ", ".join(model.version for model in candidates)
        raise ModelNotFound(f"no model {reference!r}; {candidates[0].name} has version {versions}", field="model")
    known = ", ".join(model.uri for model in list_models())
    raise ModelNotFound(
        f"no model {reference!r}; the catalogue has {known}, and `safelight model create` adds to it", field="model"
    )


def find_hub_model(reference: str) -> Model | None:
    """The model for a hub id `org/name`, of a revision if `@REVISION` follows it; None if it has not that form.

    A name that ends as files do is a path. What the catalogue knows of the hub id holds.
    """
    match = _HUB_REFERENCE.fullmatch(reference)
    if match is None or looks_like_path(reference):
        return None
    name = registry_name(match["id"])
    known = next((model for model in list_models() if model.hub_id and model.name == name), None)
    model = known or Model(name=name, hub_id=match["id"], provider="Hugging Face")
    return replace(model, revision=match["revision"])


def spec_of(model: Model) -> ModelSpec | None:
    """The catalogue's spec, or what the model's folder says; None for a hub model that is not downloaded yet."""
    if model.spec is not None or model.folder is None:
        return model.spec
    return read_model_spec(model.folder)
