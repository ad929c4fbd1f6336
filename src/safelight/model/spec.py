"""What a model can do, in one frozen record: nothing else asks which model it is.

A spec comes from the catalogue, from the sidecar file `safelight.json` in the model's folder, or is read off the
component configs of a diffusers-layout folder. Reading it needs no torch, so the gateway knows it before a replica has
loaded anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

from safelight.errors import ModelLoadError
from safelight.model.checkpoint import NETWORKS, check_checkpoint, read_json
from safelight.model.revision import hub_id_of
from safelight.model.safetensors_head import read_shapes
from safelight.model.weight_files import find_weights

SIDECAR = "safelight.json"

SCHEDULER_ALIASES = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "FlowMatchHeunDiscreteScheduler",
    "lcm": "FlowMatchLCMScheduler",
    "unipc": "UniPCMultistepScheduler",
    "dpmpp": "DPMSolverMultistepScheduler",
}
"""Short name -> diffusers class name, for every noise scheduler a request may name."""


Quality = Literal["low", "medium", "high", "xhigh", "max"]
QUALITY_STEPS: Mapping[Quality, float] = {"low": 0.5, "medium": 1, "high": 2, "xhigh": 3, "max": 4}
"""What a quality multiplies a model's default number of steps by."""


class Guidance(StrEnum):
    """What `guidance_scale` does on a model."""

    EMBEDDED = "embedded"
    """The transformer takes the scale as an input (FLUX.1-dev)."""
    TRAINED = "trained"
    """Trained with caption dropout: the scale is the strength of classifier-free guidance (sprite)."""
    NONE = "none"
    """Distilled away (FLUX.1-schnell): no effect, unless a negative prompt is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """An adapter that requests may name."""

    name: str
    file: str
    """Path of a safetensors file."""
    scale: float = 1.0
    """Where the request says none."""
    hub_id: str | None = None
    """Another name for it, if it came from the hub."""
    revision: str = ""
    """`sha256:` and 16 digits over the file, and over PEFT's settings if they lie beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a model can do. Sizes are in pixels, lengths in tokens."""

    name: str
    version: str = "1"
    description: str = ""
    license: str = ""
    default_num_inference_steps: int
    max_num_inference_steps: int
    default_width: int
    default_height: int
    min_size: int
    """Smallest width or height."""
    max_size: int
    """Greatest width or height."""
    max_pixels: int
    size_multiple: int
    """Width and height are multiples of this: the autoencoder's scale factor times the 2x2 packing."""
    max_sequence_length: int
    """T5 tokens; longer prompts are truncated with a warning."""
    guidance: Guidance
    default_guidance_scale: float
    default_true_cfg_scale: float = 4.0
    """Strength of classifier-free guidance when a negative prompt comes without a guidance_scale."""
    default_scheduler: str = "FlowMatchEulerDiscreteScheduler"
    schedulers: tuple[str, ...] = tuple(SCHEDULER_ALIASES.values())
    examples: tuple[str, ...] = ()
    loras: tuple[LoraFile, ...] = ()
    """What requests may name; settings say it, and no sidecar."""

    def steps_for(self, quality: Quality) -> int:
        """Denoising steps of a picture of this quality."""
        steps = int(self.default_num_inference_steps * QUALITY_STEPS[quality])
        return min(max(steps, 1), self.max_num_inference_steps)


def read_model_spec(folder: Path) -> ModelSpec:
    """The spec of a diffusers-layout folder: its sidecar's values over those read off the component configs.

    Raises UnsupportedModel if the folder is no FLUX.1 checkpoint in the diffusers layout, ModelLoadError if it is
    broken.
    """
    values = _values_from_configs(folder) | _values_from_sidecar(folder)
    try:
        return msgspec.convert(values, ModelSpec)
    except msgspec.ValidationError as error:
        hint = f" (one of {', '.join(Guidance)})" if "guidance" in str(error) else ""
        raise ModelLoadError(f"{folder / SIDECAR} makes no sense: {error}{hint}; correct it, or remove it") from None


def count_parameters(folder: Path) -> dict[str, int]:
    """Component -> how many weights it has, from the heads of its safetensors files. Raises ModelLoadError."""
    return {
        network.name: sum(_count_weights(path) for path in find_weights(folder, network)[1]) for network in NETWORKS
    }


def _count_weights(path: Path) -> int:
    try:
        return sum(math.prod(shape) for shape in read_shapes(path).values())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}; download the checkpoint again") from None


def _values_from_configs(folder: Path) -> dict[str, Any]:
    check_checkpoint(folder)
    transformer = read_json(folder / "transformer" / "config.json")
    embedded = bool(transformer.get("guidance_embeds", False))
    return {
        "name": folder_name(folder),
        "default_num_inference_steps": 28 if embedded else 4,
        "max_num_inference_steps": 100,
        "default_width": 1024,
        "default_height": 1024,
        "min_size": 64,
        "max_size": 2048,
        "max_pixels": 2048 * 2048,
        "size_multiple": _vae_scale_factor(folder) * 2,
        "max_sequence_length": 512 if embedded else 256,
        "guidance": Guidance.EMBEDDED if embedded else Guidance.NONE,
        "default_guidance_scale": 3.5 if embedded else 0.0,
    }


def folder_name(folder: Path) -> str:
    """What a model is called by its folder: by its hub id, if it lies in the hub's cache."""
    hub_id = hub_id_of(folder)
    return registry_name(hub_id) if hub_id else folder.resolve().name.lower()


def registry_name(hub_id: str) -> str:
    """The name of a hub model in the registry: black-forest-labs/FLUX.1-schnell is black-forest-labs-flux.1-schnell."""
    return hub_id.replace("/", "-").replace("_", "-").lower()


def _vae_scale_factor(folder: Path) -> int:
    config = read_json(folder / "vae" / "config.json")
    channels = config.get("block_out_channels") or config.get("decoder_block_out_channels")
    if not isinstance(channels, list) or not channels:
        raise ModelLoadError(
            f"{folder / 'vae' / 'config.json'} has no list block_out_channels: not an autoencoder config"
        )
    return int(2 ** (len(channels) - 1))


def _values_from_sidecar(folder: Path) -> dict[str, Any]:
    path = folder / SIDECAR
    if not path.exists():
        return {}
    values = read_json(path)
    unknown = sorted(values.keys() - ({field.name for field in fields(ModelSpec)} - {"loras"}))
    if unknown:
        raise ModelLoadError(f"{path} has unknown keys {', '.join(unknown)}; remove them")
    if isinstance(values.get("max_size"), int):
        values.setdefault("max_pixels", values["max_size"] ** 2)
    return values
