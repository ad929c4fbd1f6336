"""From what a client gave to one valid `GenerationRequest`: defaults, limits, and the truth about every parameter.

Dialects call `build_generation_request` with the engine's names; `None` means not given. It raises InvalidRequest
naming the field and what would be right, and collects a warning for everything that has no effect.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

from safelight.errors import InvalidRequest
from safelight.limits import MAX_GUIDANCE_SCALE, MAX_LORA_SCALE, MAX_LORAS, MAX_PROMPT_CHARACTERS
from safelight.model.spec import SCHEDULER_ALIASES, Guidance, ModelSpec
from safelight.picture.generation import (
    GenerationRequest,
    ImageFormat,
    LoraWeight,
    OptionalParameters,
    PreviewDecoder,
    SourceImage,
)
from safelight.picture.prompt_syntax import warn_of_syntax
from safelight.telemetry.names import current_names

DRAWN = -1
"""As a seed the same as none: what other programs mean by it."""

MAX_FITTED_SIDE = 100_000
"""Pixels; whoever writes more does not mean a picture."""


def build_generation_request(
    spec: ModelSpec,
    *,
    id: str,
    prompt: str,
    fits_size: bool = False,
    num_images_per_prompt: int = 1,
    image_format: ImageFormat = "png",
    image_quality: int = 95,
    source: SourceImage | None = None,
    loras: Sequence[tuple[str, float | None]] = (),
    num_previews: int = 0,
    preview_decoder: PreviewDecoder = "projection",
    is_streamed: bool = False,
    timeout_s: float = 180.0,
    warnings: tuple[str, ...] = (),
    **given: Unpack[OptionalParameters],
) -> GenerationRequest:
    """The request in force for `spec`. Raises InvalidRequest with the field and the remedy."""
    negative_prompt, seed = given.get("negative_prompt"), given.get("seed")
    if not prompt.strip() and source is None:
        raise InvalidRequest("prompt is empty; say what the picture should show", field="prompt")
    if len(negative_prompt or "") > MAX_PROMPT_CHARACTERS:
        raise InvalidRequest(
            f"negative_prompt has more than {MAX_PROMPT_CHARACTERS} characters", field="negative_prompt"
        )
    guidance = _guidance_in_force(spec, negative_prompt, given.get("guidance_scale"), given.get("true_cfg_scale"))
    asked = _or(given.get("width"), spec.default_width), _or(given.get("height"), spec.default_height)
    (width, height), size_warnings = size_in_force(spec, *asked, fits=fits_size)
    return GenerationRequest(
        id=id,
        prompt=prompt,
        negative_prompt=guidance.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=_check_steps(spec, given.get("num_inference_steps")),
        scheduler=resolve_scheduler(spec, given.get("scheduler")),
        guidance_scale=guidance.guidance_scale,
        true_cfg_scale=guidance.true_cfg_scale,
        seed=secrets.randbits(32) if seed is None or seed == DRAWN else seed,
        num_images_per_prompt=num_images_per_prompt,
        image_format=image_format,
        image_quality=image_quality,
        source=source,
        loras=_check_loras(spec, loras),
        num_previews=num_previews,
        preview_decoder=preview_decoder,
        is_streamed=is_streamed,
        timeout_s=timeout_s,
        names=current_names(),
        warnings=warnings + size_warnings + guidance.warnings + warn_of_syntax(prompt, negative_prompt),
    )


def _or(pixels: int | None, default: int) -> int:
    return default if pixels is None else pixels


def resolve_scheduler(spec: ModelSpec, name: str | None) -> str:
    """The diffusers class name for a class name or a short alias. Raises InvalidRequest listing what is accepted."""
    if name is None:
        return spec.default_scheduler
    resolved = SCHEDULER_ALIASES.get(name, name)
    if resolved not in spec.schedulers:
        accepted = ", ".join(
            f"{class_name} ({alias})"
            for alias, class_name in SCHEDULER_ALIASES.items()
            if class_name in spec.schedulers
        )
        raise InvalidRequest(
            f"scheduler {name[:64]!r} is not compatible with {spec.name}; use one of: {accepted}", field="scheduler"
        )
    return resolved


def size_in_force(spec: ModelSpec, width: int, height: int, *, fits: bool) -> tuple[tuple[int, int], tuple[str, ...]]:
    """The size, if the model makes such pictures; with `fits` else the nearest one of the same shape, and a warning.

    Raises InvalidRequest.
    """
    try:
        return check_size(spec, width, height), ()
    except InvalidRequest:
        if not fits or min(width, height) < 1 or max(width, height) > MAX_FITTED_SIDE:
            raise
    size = size_for_image(spec, width, height)
    return size, (f"size {width}x{height} is not possible on {spec.name}; the nearest is made: {size[0]}x{size[1]}",)


def check_size(spec: ModelSpec, width: int, height: int) -> tuple[int, int]:
    """Width and height, if the model makes such pictures. Raises InvalidRequest with the nearest that it makes."""
    for name, pixels in (("width", width), ("height", height)):
        nearest = _nearest_side(spec, pixels)
        if pixels != nearest:
            raise InvalidRequest(
                f"{name} {pixels} is not possible on {spec.name}: it must be a multiple of {spec.size_multiple} "
                f"between {spec.min_size} and {spec.max_size}; the nearest is {nearest}",
                field=name,
            )
    if width * height > spec.max_pixels:
        raise InvalidRequest(
            f"{width}x{height} is {width * height} pixels; {spec.name} makes at most {spec.max_pixels}", field="width"
        )
    return width, height


def size_for_image(spec: ModelSpec, width: int, height: int) -> tuple[int, int]:
    """The size that the model makes which is nearest to an image's, shrunk or grown as a whole where it must be."""
    shrink = min(1.0, spec.max_size / max(width, height), math.sqrt(spec.max_pixels / (width * height)))
    scale = max(shrink, min(spec.min_size / min(width, height), spec.max_size / max(width, height)))
    fitted = (_nearest_side(spec, round(width * scale)), _nearest_side(spec, round(height * scale)))
    if fitted[0] * fitted[1] > spec.max_pixels:  # rounding up to the next multiple went too far
        fitted = (fitted[0] - spec.size_multiple, fitted[1] - spec.size_multiple)
    return fitted


def _check_steps(spec: ModelSpec, steps: int | None) -> int:
    if steps is None:
        return spec.default_num_inference_steps
    if not 1 <= steps <= spec.max_num_inference_steps:
        raise InvalidRequest(
            f"num_inference_steps must be between 1 and {spec.max_num_inference_steps} on {spec.name}, not {steps}",
            field="num_inference_steps",
        )
    return steps


def _check_loras(spec: ModelSpec, loras: Sequence[tuple[str, float | None]]) -> tuple[LoraWeight, ...]:
    """The adapters of (name or hub id, scale). Raises InvalidRequest listing what there is."""
    if len(loras) > MAX_LORAS:
        raise InvalidRequest(f"{len(loras)} LoRAs are named; at most {MAX_LORAS} are added up", field="loras")
    weights = {}
    for name, scale in loras:
        known = next((each for each in spec.loras if name in (each.name, each.hub_id)), None)
        if known is None:
            there_are = ", ".join(each.name for each in spec.loras) or "none"
            raise InvalidRequest(f"no LoRA {name[:64]!r} here; there are: {there_are}", field="loras")
        if known.name in weights:
            raise InvalidRequest(f"LoRA {known.name!r} is named twice; add its scales up", field="loras")
        weight = LoraWeight(name=known.name, scale=known.scale if scale is None else scale, revision=known.revision)
        if not -MAX_LORA_SCALE <= weight.scale <= MAX_LORA_SCALE:
            raise InvalidRequest(
                f"the scale of LoRA {known.name!r} must be between {-MAX_LORA_SCALE:g} and {MAX_LORA_SCALE:g}, "
                f"not {weight.scale:g}",
                field="loras",
            )
        weights[known.name] = weight
    return tuple(weights[name] for name in sorted(weights))


def _nearest_side(spec: ModelSpec, pixels: int) -> int:
    multiple = spec.size_multiple
    smallest = -(-spec.min_size // multiple) * multiple
    greatest = spec.max_size // multiple * multiple
    nearest = (2 * pixels + multiple) // (2 * multiple) * multiple
    return min(max(nearest, smallest), greatest)


@dataclass(frozen=True, slots=True)
class _GuidanceInForce:
    negative_prompt: str | None
    guidance_scale: float
    true_cfg_scale: float
    warnings: tuple[str, ...] = ()


def _guidance_in_force(
    spec: ModelSpec, negative_prompt: str | None, guidance_scale: float | None, true_cfg_scale: float | None
) -> _GuidanceInForce:
    """Which guidance runs, and what of it has no effect. See docs/decisions on negative_prompt and guidance_scale."""
    _check_scale("guidance_scale", guidance_scale)
    _check_scale("true_cfg_scale", true_cfg_scale)
    embedded_scale = spec.default_guidance_scale if guidance_scale is None else guidance_scale
    strength = true_cfg_scale
    if strength is None and spec.guidance is not Guidance.EMBEDDED:
        strength = guidance_scale
    # An empty negative prompt is one too (the unconditional row) when the strength is asked for by diffusers' own name.
    if negative_prompt or (negative_prompt is not None and (true_cfg_scale or 0) > 1):
        in_force = _with_negative_prompt(spec, negative_prompt, embedded_scale, strength)
    elif spec.guidance is Guidance.TRAINED:
        strength = spec.default_guidance_scale if strength is None else strength
        in_force = _GuidanceInForce("", embedded_scale, max(strength, 1.0))
    else:
        warnings = _without_effect(spec, guidance_scale, true_cfg_scale)
        return _GuidanceInForce(None, embedded_scale, 1.0, warnings)
    if spec.guidance is not Guidance.EMBEDDED and guidance_scale not in (None, strength):
        warning = f"guidance_scale has no effect next to true_cfg_scale on {spec.name}"
        return replace(in_force, warnings=(*in_force.warnings, warning))
    return in_force


def _with_negative_prompt(
    spec: ModelSpec, negative_prompt: str, embedded_scale: float, strength: float | None
) -> _GuidanceInForce:
    if strength is None:
        strength = _default_strength(spec)
    if strength <= 1:
        name = "true_cfg_scale" if spec.guidance is Guidance.EMBEDDED else "guidance_scale"
        warning = f"negative_prompt has no effect with {name} {strength:g}; give a {name} above 1"
        return _GuidanceInForce(None, embedded_scale, 1.0, (warning,))
    if _is_guided_by_default(spec):
        return _GuidanceInForce(negative_prompt, embedded_scale, strength)
    warning = f"negative_prompt runs classifier-free guidance at scale {strength:g}: every step costs twice as much"
    return _GuidanceInForce(negative_prompt, embedded_scale, strength, (warning,))


def _default_strength(spec: ModelSpec) -> float:
    return spec.default_guidance_scale if _is_guided_by_default(spec) else spec.default_true_cfg_scale


def _is_guided_by_default(spec: ModelSpec) -> bool:
    return spec.guidance is Guidance.TRAINED and spec.default_guidance_scale > 1


def _without_effect(spec: ModelSpec, guidance_scale: float | None, true_cfg_scale: float | None) -> tuple[str, ...]:
    warnings = []
    if spec.guidance is Guidance.NONE and guidance_scale:
        warnings.append(
            f"guidance_scale has no effect on {spec.name} without a negative_prompt: it was distilled to need none"
        )
    if true_cfg_scale is not None and true_cfg_scale > 1:
        warnings.append(f"true_cfg_scale has no effect on {spec.name} without a negative_prompt")
    return tuple(warnings)


def _check_scale(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value <= MAX_GUIDANCE_SCALE:
        raise InvalidRequest(f"{name} must be between 0 and {MAX_GUIDANCE_SCALE:g}, not {value:g}", field=name)
