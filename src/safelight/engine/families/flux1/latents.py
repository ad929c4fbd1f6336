"""How FLUX.1 packs latents: each 2x2 patch into one token, so they are (rows, tokens, channels * 4) until decoded."""

from __future__ import annotations

import torch
from torch import Tensor


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
