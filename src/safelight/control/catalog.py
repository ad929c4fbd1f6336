"""The catalogue: the models that Safelight knows by name, and how a name, a folder or a hub id becomes a model."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path

from safelight.errors import ModelNotFound
from safelight.model_spec import Guidance, ModelSpec, read_model_spec

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
    folder: Path | None = None
    hub_id: str | None = None
    is_gated: bool = False
    provider: str = ""
    spec: ModelSpec | None = None


def sprite_folder() -> Path:
    """The folder of the embedded model inside the installed package."""
    return Path(str(importlib.resources.files("safelight"))) / "models" / "sprite"


def list_models() -> tuple[Model, ...]:
    """The models known by name, the embedded one first."""
    return (
        Model(name="sprite", folder=sprite_folder(), provider="Safelight"),
        Model(
            name=FLUX_SCHNELL.name,
            hub_id="black-forest-labs/FLUX.1-schnell",
            is_gated=True,
            provider="Hugging Face",
            spec=FLUX_SCHNELL,
        ),
    )


def find_model(name: str) -> Model:
    """The model for a catalogue name, a folder, or a hub id `org/name`. Raises ModelNotFound with the remedy.

    A hub id is matched to the catalogue by Azure's rule: `/` and `_` become `-`, in lower case.
    """
    for model in list_models():
        if registry_name(name) == model.name:
            return model
    path = Path(name).expanduser()
    if path.is_dir():
        return Model(name=path.resolve().name.lower(), folder=path.resolve())
    if is_hub_id(name):
        return Model(name=registry_name(name), hub_id=name, provider="Hugging Face")
    known = ", ".join(model.name for model in list_models())
    raise ModelNotFound(
        f"no model {name!r}: give one of {known}, a folder in the diffusers layout, or a hub id such as "
        "black-forest-labs/FLUX.1-schnell",
        field="model",
    )


def registry_name(hub_id: str) -> str:
    """The name of a hub model in the registry: black-forest-labs/FLUX.1-schnell is black-forest-labs-flux.1-schnell."""
    return hub_id.replace("/", "-").replace("_", "-").lower()


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form `org/name` of a hub id (and not that of a path)."""
    parts = name.split("/")
    return len(parts) == 2 and all(part and part[0].isalnum() and part.isascii() for part in parts)


def spec_of(model: Model) -> ModelSpec | None:
    """The catalogue's spec, or what the model's folder says; None for a hub model that is not downloaded yet."""
    if model.spec is not None or model.folder is None:
        return model.spec
    return read_model_spec(model.folder)
