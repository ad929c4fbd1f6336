"""What the engine asks of a family of models; `families/flux1` is the first. Its torch-free half is its `Layout`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from safelight.engine.denoising.noise_schedulers import SchedulerConfig
from safelight.engine.devices import Precision
from safelight.engine.low_rank import Lora
from safelight.engine.prompts import PromptEmbeds
from safelight.model.families.layout import Layout
from safelight.model.spec import LoraFile, ModelSpec


class Components(Protocol):
    """What every loaded checkpoint has. diffusers and transformers are untyped, so their objects are Any here."""

    @property
    def transformer(self) -> Any: ...
    @property
    def autoencoder(self) -> Any: ...
    @property
    def text_encoder(self) -> Any:
        """Of several, the one that LoRAs change."""

    @property
    def scheduler_config(self) -> SchedulerConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def precision(self) -> Precision: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One forward pass: every row has its own timestep, guidance and prompt; all share the size of the picture."""

    latents: Tensor
    """Packed."""
    timesteps: Tensor
    """0 to 1000, in the dtype of the latents."""
    guidance_scale: Tensor
    """fp32; for a transformer that takes it as an input."""
    prompts: Mapping[str, Tensor]
    """The family's own, one below the other."""
    height: int
    """Of the latents before they were packed."""
    width: int


class Family(Protocol):
    """One loaded checkpoint. Latents are (rows, channels, height, width) as the autoencoder has them.

    Packed ones are (rows, tokens, channels), the tokens counted as the noise schedule counts them.
    """

    @property
    def components(self) -> Components: ...
    @property
    def latent_channels(self) -> int: ...
    @property
    def scale_factor(self) -> int:
        """Pixels of the picture to a pixel of the latents, along each side."""

    def encode_prompt(self, prompt: str, /) -> PromptEmbeds: ...
    def pack(self, latents: Tensor, /) -> Tensor: ...
    def unpack(self, packed: Tensor, /, height: int, width: int) -> Tensor:
        """The inverse of `pack`; height and width are those of the latents."""

    def predict_velocity(self, rows: Rows, /) -> Tensor:
        """What the transformer predicts for every row in one call, in the shape of the packed latents."""

    def read_lora(self, source: LoraFile, /) -> Lora:
        """An adapter, on the model's device. Raises ModelLoadError, naming the file."""


class Loader(Protocol):
    """`load`, in the module that a `Layout` names."""

    def __call__(self, folder: Path, spec: ModelSpec, *, device: torch.device, precision: Precision) -> Family:
        """Of a checked folder. Raises UnsupportedModel or ModelLoadError, naming the file and the remedy."""


def network_classes(layout: Layout) -> tuple[Any, ...]:
    """The classes that fill the layout's networks: `CLASSES`, in the module that it names."""
    classes: tuple[Any, ...] = import_module(layout.engine).CLASSES
    return classes


def load_family(layout: Layout, folder: Path, spec: ModelSpec, *, device: torch.device, precision: Precision) -> Family:
    """The checkpoint in a folder that `check_checkpoint` has found to be of the layout. Raises as `Loader`."""
    load = cast(Loader, import_module(layout.engine).load)
    return load(folder, spec, device=device, precision=precision)
