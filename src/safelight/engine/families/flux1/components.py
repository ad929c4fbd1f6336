"""The components of a FLUX.1 checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

from safelight.engine.denoising.noise_schedulers import SchedulerConfig
from safelight.engine.devices import Precision
from safelight.engine.families.loading import load_parts
from safelight.model.families.flux1 import FLUX1

CLASSES = (FluxTransformer2DModel, AutoencoderKL, AutoencoderTiny, CLIPTextModel, T5EncoderModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """One loaded checkpoint. diffusers and transformers are untyped, so their objects are Any here."""

    transformer: Any
    autoencoder: Any
    text_encoder: Any
    """CLIP."""
    text_encoder_2: Any
    """T5."""
    tokenizer: Any
    tokenizer_2: Any
    scheduler_config: SchedulerConfig
    device: torch.device
    precision: Precision


def load_components(
    folder: Path, *, device: torch.device, precision: Precision, schedulers: Sequence[str] = ()
) -> Components:
    """Raises UnsupportedModel or ModelLoadError naming the file and the remedy."""
    parts = load_parts(folder, FLUX1, CLASSES, device=device, precision=precision, schedulers=schedulers)
    return Components(
        transformer=parts.networks["transformer"],
        autoencoder=parts.networks["vae"],
        text_encoder=parts.networks["text_encoder"],
        text_encoder_2=parts.networks["text_encoder_2"],
        tokenizer=parts.tokenizers["tokenizer"],
        tokenizer_2=parts.tokenizers["tokenizer_2"],
        scheduler_config=parts.scheduler_config,
        device=device,
        precision=precision,
    )
