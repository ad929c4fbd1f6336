"""Denoised latents become pixels, and the pixels of an upload become latents."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

Pixels = npt.NDArray[np.uint8]


def decode_latents(autoencoder: Any, latents: Tensor) -> Tensor:
    """Unpacked latents (1, channels, height, width) to an image (3, height, width) in fp32, nominally -1 to 1.

    AutoencoderKL and AutoencoderTiny both decode to -1 to 1. If the decoder's dtype overflows (a known fault of large
    autoencoders in 16 bits), this image is decoded again in fp32, and no other: each is what it would be alone.
    """
    return _again_in_fp32(autoencoder, lambda: _decode(autoencoder, latents))


def encode_image(autoencoder: Any, image: Tensor, generator: torch.Generator | None) -> Tensor:
    """Images (rows, 3, height, width), -1 to 1, to latents (rows, channels, height, width) in the image's dtype."""
    return draw_latents(autoencoder, encode_moments(autoencoder, image), generator).to(image.dtype)


def encode_moments(autoencoder: Any, image: Tensor) -> Tensor:
    """What `draw_latents` draws from: AutoencoderKL's means and log variances, or AutoencoderTiny's latents.

    An overflow is treated as in `decode_latents`.
    """
    return _again_in_fp32(autoencoder, lambda: _encode(autoencoder, image))


def draw_latents(autoencoder: Any, moments: Tensor, generator: torch.Generator | None) -> Tensor:
    """Latents (rows, channels, height, width) in the dtype of `moments`.

    AutoencoderKL draws them from its distribution with the generator, and without one takes the mean; AutoencoderTiny
    has but one answer.
    """
    config, latents = autoencoder.config, moments
    if not isinstance(autoencoder, AutoencoderTiny):
        distribution = DiagonalGaussianDistribution(moments)
        latents = distribution.mode() if generator is None else distribution.sample(generator)
    scaled: Tensor = (latents - (config.get("shift_factor") or 0.0)) * config.scaling_factor
    return scaled


def to_pixels(image: Tensor) -> Pixels:
    """A finite image (3, height, width), -1 to 1, to uint8 (height, width, 3); what lies beyond is clipped."""
    unit = (image * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    return (unit * 255).round().astype(np.uint8)


_in_use = threading.Lock()
"""Nobody must find the weights half way to fp32."""


def _again_in_fp32(autoencoder: Any, run: Callable[[], Tensor]) -> Tensor:
    """What `run` makes; again in fp32 if it overflows. 16 bits come back from fp32 as they were."""
    with _in_use:
        made, dtype = run(), autoencoder.dtype
        if dtype is torch.float32 or bool(torch.isfinite(made).all()):
            return made
        autoencoder.to(torch.float32)
        try:
            return run()
        finally:
            autoencoder.to(dtype)
            if made.device.type == "cuda":  # whoever uses it next may do so on another stream
                torch.cuda.current_stream(made.device).synchronize()


def _encode(autoencoder: Any, image: Tensor) -> Tensor:
    encoded = autoencoder.encode(image.to(autoencoder.dtype))
    moments: Tensor = encoded.latents if isinstance(autoencoder, AutoencoderTiny) else encoded.latent_dist.parameters
    return moments


def _decode(autoencoder: Any, latents: Tensor) -> Tensor:
    config = autoencoder.config
    unscaled = latents.to(autoencoder.dtype) / config.scaling_factor + (config.get("shift_factor") or 0.0)
    image: Tensor = autoencoder.decode(unscaled, return_dict=False)[0]
    return image[0].float()
