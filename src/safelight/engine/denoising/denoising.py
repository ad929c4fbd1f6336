"""The tensors of one generation on its way from noise to image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safelight.engine.denoising.finite_checks import FiniteCheck
from safelight.engine.denoising.noise_schedulers import NoiseScheduler
from safelight.engine.low_rank import Lora
from safelight.engine.prompts import PromptEmbeds
from safelight.errors import NonFiniteValues
from safelight.picture.generation import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """What a masked image keeps: its packed latents, and the noise that they have in common with the new ones."""

    latents: Tensor
    noise: Tensor
    mask: Tensor
    """1 where the image is painted anew."""


@dataclass(slots=True, eq=False, kw_only=True)
class Denoising:
    """The tensors of one generation in flight."""

    latents: Tensor
    """(1, tokens, channels)."""
    prompts: tuple[PromptEmbeds, ...]
    """The prompt's, and after it the negative prompt's if guidance runs: one row of the batch each."""
    noise_scheduler: NoiseScheduler
    generator: torch.Generator
    loras: tuple[tuple[Lora, float], ...] = ()
    """Each with its scale."""
    original: Original | None = None
    """None unless the request has a mask."""
    timesteps: Tensor
    """One for each call, where the model is and in its dtype; as are `sigmas`, of which there is one more."""
    sigmas: Tensor
    guidance_scale: Tensor
    """fp32, (1,)."""
    check: FiniteCheck | None = None
    """Whether the last step made numbers."""
    clean_latents: Tensor | None = None
    """As the last step expects them to become; None unless there are previews to make."""


def why_not_finite(generation: Generation, check: FiniteCheck | None) -> NonFiniteValues | None:
    if check is None or check.is_finite():
        return None
    return NonFiniteValues(
        f"step {check.step_index} of {generation.num_steps} made NaN or infinite latents; "
        "run the model with dtype float32, or ask for other parameters"
    )


def check_pixels(generation: Generation, image: Tensor) -> None:
    """Raises NonFiniteValues for an image that has none everywhere."""
    if not bool(image.isfinite().all()):
        raise NonFiniteValues(
            f"the autoencoder made NaN or infinite pixels after step {generation.step_index} of "
            f"{generation.num_steps}, in float32 too; ask for other parameters"
        )
