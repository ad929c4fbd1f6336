"""What a model can do, in one frozen record: nothing else asks which model it is.

A spec comes from the catalogue, or is read off a model's folder (`checkpoint.read_model_spec`). Reading it needs no
torch, so the gateway knows it before a replica has loaded anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from safelight.model.revision import hub_id_of

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


def folder_name(folder: Path) -> str:
    """What a model is called by its folder: by its hub id, if it lies in the hub's cache."""
    hub_id = hub_id_of(folder)
    return registry_name(hub_id) if hub_id else printable_name(folder.resolve().name.lower())


def printable_name(name: str) -> str:
    """Of a folder or file, whose own may be anything: what a model is called is shown, and sent."""
    return "".join(each if each.isprintable() else "-" for each in name)


def registry_name(hub_id: str) -> str:
    """The name of a hub model in the registry: black-forest-labs/FLUX.1-schnell is black-forest-labs-flux.1-schnell."""
    return hub_id.replace("/", "-").replace("_", "-").lower()
