"""The arithmetic of flow matching, alike for every family: functions of tensors, with no state and no device moves.

Latents are a mixture of a clean picture and noise; `sigma` is the share of noise, and the velocity leads to the noise.
"""

from __future__ import annotations

from torch import Tensor


def combine_guidance(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: away from what the negative prompt predicts."""
    return unconditional + scale * (conditional - unconditional)


def predict_clean(latents: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The latents without noise, as the model expects them to become: latents = (1 - sigma) * clean + sigma * noise."""
    return latents - sigma.to(latents) * velocity


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Clean latents with their share `sigma` of noise."""
    share = sigma.to(clean)
    return share * noise + (1.0 - share) * clean


def keep_unmasked(latents: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """The latents where the mask is 1, the original where it is 0."""
    return (1 - mask) * original + mask * latents
