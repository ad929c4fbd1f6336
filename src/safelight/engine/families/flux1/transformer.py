"""The tensor arithmetic of one denoising step: functions of tensors, with no state and no device moves.

FLUX packs each 2x2 patch of latents into one token, so latents are (rows, tokens, channels) until they are decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerInputs:
    """One forward pass: every row has its own timestep, guidance and text; all rows share size and text length."""

    latents: Tensor
    timesteps: Tensor
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    guidance: Tensor | None
    """None where the transformer has no guidance embedding."""
    image_ids: Tensor


def predict_velocity(transformer: Callable[..., tuple[Tensor]], inputs: TransformerInputs) -> Tensor:
    """The velocity that the transformer predicts for every row, in one call."""
    text_length = inputs.prompt_embeds.shape[1]
    return transformer(
        hidden_states=inputs.latents,
        # The transformer multiplies by 1000 again, in its own dtype.
        timestep=inputs.timesteps / 1000,
        guidance=inputs.guidance,
        pooled_projections=inputs.pooled_prompt_embeds,
        encoder_hidden_states=inputs.prompt_embeds,
        txt_ids=torch.zeros(text_length, 3, device=inputs.latents.device),
        img_ids=inputs.image_ids,
        return_dict=False,
    )[0]


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


def pack_latents(latents: Tensor) -> Tensor:
    """(rows, channels, height, width) -> (rows, height/2 * width/2, channels * 4)."""
    rows, channels, height, width = latents.shape
    patches = latents.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(rows, height // 2 * (width // 2), channels * 4)


def unpack_latents(latents: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack_latents`; height and width are those of the latents."""
    rows, _, channels = latents.shape
    patches = latents.view(rows, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(rows, channels // 4, height, width)


def make_image_ids(height: int, width: int) -> Tensor:
    """Where each token stands, for the rotary position embedding: (0, row, column); sizes are those of the latents."""
    ids = torch.zeros(height // 2, width // 2, 3)
    ids[..., 1] = torch.arange(height // 2)[:, None]
    ids[..., 2] = torch.arange(width // 2)[None, :]
    return ids.reshape(-1, 3)
