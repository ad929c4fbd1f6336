"""What a model's card says: licence, gate, memory, and each parameter with its range and what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safelight.limits import MAX_GUIDANCE_SCALE, MAX_SEED
from safelight.model.catalog import Model, spec_of
from safelight.model.memory.stored_parts import StoredPart, describe_parts
from safelight.model.spec import QUALITY_STEPS, SCHEDULER_ALIASES, Guidance, ModelSpec

BYTES_PER_WEIGHT = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCard:
    """One parameter of a request."""

    name: str
    type: str
    default: str | float | None = None
    """None: there is none, or it is drawn."""
    minimum: float | None = None
    maximum: float | None = None
    multiple_of: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    """Alias -> value, where only these are accepted."""
    has_effect: bool = True
    """Whether it changes the picture when it is the only one given."""
    effect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Everything that can be said about a model; less where its files are not here yet."""

    name: str
    version: str
    uri: str
    registry: str
    provider: str
    description: str
    license: str
    last_updated: str
    is_gated: bool | None
    """None: not known before a download."""
    access_page: str | None
    """Where access is requested."""
    hub_id: str | None
    path: str | None
    num_parameters: Mapping[str, int]
    """Component -> weights."""
    parts: Mapping[str, StoredPart]
    """Component -> how its files hold it, where they are here."""
    weights_bytes: Mapping[str, int]
    """dtype -> memory for the weights alone."""
    parameters: tuple[ParameterCard, ...]
    examples: tuple[str, ...]


def model_card(model: Model) -> ModelCard:
    """Raises ModelLoadError if the model's folder is broken or gone."""
    spec = spec_of(model)
    parts = describe_parts(model.folder) if model.folder else {}
    num_parameters = model.num_parameters or {name: part.num_parameters for name, part in parts.items()}
    total = sum(num_parameters.values())
    is_known = bool(model.folder or model.registry or model.is_gated)
    return ModelCard(
        name=model.name,
        version=model.version,
        uri=model.uri,
        registry=model.registry,
        provider=model.provider,
        description=model.description or (spec.description if spec else ""),
        license=spec.license if spec else "",
        last_updated=model.last_updated,
        is_gated=model.is_gated if is_known else None,
        access_page=model.access_page,
        hub_id=model.hub_id,
        path=str(model.folder) if model.folder else None,
        num_parameters=num_parameters,
        parts=parts,
        weights_bytes={dtype: total * size for dtype, size in BYTES_PER_WEIGHT.items()} if total else {},
        parameters=parameters_of(spec) if spec else (),
        examples=spec.examples if spec else (),
    )


def parameters_of(spec: ModelSpec) -> tuple[ParameterCard, ...]:
    """In the order of the Hugging Face task: the prompt, then the seven that every model takes."""
    return (
        ParameterCard(
            name="inputs",
            type="string",
            effect=f"the prompt; {spec.max_sequence_length} tokens of it are read",
        ),
        _guidance_scale(spec),
        ParameterCard(name="negative_prompt", type="string", effect=_NEGATIVE_PROMPT.format(_strength(spec))),
        ParameterCard(
            name="num_inference_steps",
            type="integer",
            default=spec.default_num_inference_steps,
            minimum=1,
            maximum=spec.max_num_inference_steps,
            effect=f"denoising steps; of OpenAI's quality {_steps_of_qualities(spec)}",
        ),
        _side("width", spec.default_width, spec),
        _side("height", spec.default_height, spec),
        ParameterCard(
            name="scheduler",
            type="string",
            default=spec.default_scheduler,
            values={alias: name for alias, name in SCHEDULER_ALIASES.items() if name in spec.schedulers},
            effect="the solver of the denoising steps",
        ),
        ParameterCard(
            name="seed",
            type="integer",
            minimum=0,
            maximum=MAX_SEED,
            effect="same seed, same picture; drawn if not given, or -1",
        ),
    )


def _steps_of_qualities(spec: ModelSpec) -> str:
    return ", ".join(f"{name} {spec.steps_for(name)}" for name in QUALITY_STEPS)


def _guidance_scale(spec: ModelSpec) -> ParameterCard:
    return ParameterCard(
        name="guidance_scale",
        type="number",
        default=spec.default_guidance_scale,
        minimum=0,
        maximum=MAX_GUIDANCE_SCALE,
        has_effect=spec.guidance is not Guidance.NONE,
        effect=_GUIDANCE_SCALE[spec.guidance],
    )


def _strength(spec: ModelSpec) -> str:
    if spec.guidance is Guidance.EMBEDDED:
        return f"true_cfg_scale, or {spec.default_true_cfg_scale:g} without"
    if spec.guidance is Guidance.TRAINED and spec.default_guidance_scale > 1:
        return "guidance_scale"
    return f"guidance_scale, or {spec.default_true_cfg_scale:g} without"


def _side(name: str, default: int, spec: ModelSpec) -> ParameterCard:
    return ParameterCard(
        name=name,
        type="integer",
        default=default,
        minimum=spec.min_size,
        maximum=spec.max_size,
        multiple_of=spec.size_multiple,
        effect="pixels",
    )


_GUIDANCE_SCALE = {
    Guidance.EMBEDDED: "how closely the picture follows the prompt",
    Guidance.TRAINED: "strength of guidance; above 1, steps cost twice as much",
    Guidance.NONE: "none alone: distilled to need none; strength of a negative_prompt",
}
_NEGATIVE_PROMPT = "what not to show, at {}; steps cost twice as much"
