"""Previews that cost next to nothing: one matrix from a pixel of the latents to a small patch of the picture.

It is fitted by least squares between what the model's own encoder makes of a few drawn pictures and what its decoder
makes of that, so that it needs no file of its own and fits any autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from safelight.engine.pixels.autoencoder import decode_latents, encode_image

SHRINKAGE = 4
"""A preview's sides are this part of the picture's."""
RCOND = 1e-4
_MIN_PICTURES = 4
_MIN_PIXELS = 512
"""Of the latents, in all pictures together: a dozen for each channel."""
_PICTURE_SIZE = 128
_NUM_BLOCKS = 8


class PreviewProjection:
    """The projection, fitted when the first request has previews: a start does not wait for it.

    The fit takes a CPU most of a second for a small autoencoder, and half a minute for the full-size one: there it runs
    in a thread of its own beside the first steps.
    """

    def __init__(self, fit: Callable[[], Projection], *, beside_steps: bool) -> None:
        self._fit = fit
        self._beside_steps = beside_steps
        self._fitting: Future[Projection] | None = None
        self._fitted: Projection | None = None

    def prepare(self) -> None:
        """Begin, if that can be done beside other work."""
        if self._beside_steps and self._fitting is None and self._fitted is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix="projection")
            self._fitting = thread.submit(self._fit)
            thread.shutdown(wait=False)

    def get(self) -> Projection:
        """Raises what the fit raised; the next preview tries it again."""
        if self._fitted is None:
            fitting, self._fitting = self._fitting, None
            self._fitted = self._fit() if fitting is None else fitting.result()
        return self._fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """The matrix, and how many pixels wide the patch is that it makes of one pixel of the latents."""

    weights: Tensor
    """(channels, 3 * patch_size * patch_size)."""
    bias: Tensor
    patch_size: int

    def __call__(self, latents: Tensor) -> Tensor:
        """Unpacked latents (1, channels, height, width) to a small image (3, height, width), nominally -1 to 1."""
        _, _, height, width = latents.shape
        patches = torch.addmm(self.bias, _rows(latents), self.weights)
        return functional.pixel_shuffle(patches.T.reshape(1, -1, height, width), self.patch_size)[0]


@torch.inference_mode()
def fit_projection(autoencoder: Any, *, scale_factor: int, device: torch.device, dtype: torch.dtype) -> Projection:
    """The projection that is closest to the decoder. `scale_factor` is the picture's size over the latents'."""
    patch_size = max(1, scale_factor // SHRINKAGE)
    num_pictures = max(_MIN_PICTURES, _MIN_PIXELS * scale_factor**2 // _PICTURE_SIZE**2)
    pictures = draw_pictures(num_pictures).to(device=device, dtype=dtype)
    latents = encode_image(autoencoder, pictures, generator=None)
    decoded = torch.stack([decode_latents(autoencoder, each[None]) for each in latents]).cpu()
    small = functional.avg_pool2d(decoded, scale_factor // patch_size)
    known = functional.pad(_rows(latents).cpu(), (0, 1), value=1.0)
    wanted = _rows(functional.pixel_unshuffle(small, patch_size))
    # What hardly varies tells nothing, and would only make a preview's noise loud: rcond leaves it out.
    solution = torch.linalg.lstsq(known.double(), wanted.double(), rcond=RCOND, driver="gelsd").solution
    solution = solution.float().to(device)
    return Projection(weights=solution[:-1].contiguous(), bias=solution[-1].contiguous(), patch_size=patch_size)


def draw_pictures(number: int) -> Tensor:
    """Soft gradients with blocks of flat colour over them, always the same: (pictures, 3, size, size), -1 to 1."""
    generator = torch.Generator("cpu").manual_seed(0)
    corners = torch.rand(number, 3, 3, 3, generator=generator) * 2 - 1
    pictures = functional.interpolate(corners, size=(_PICTURE_SIZE, _PICTURE_SIZE), mode="bilinear", align_corners=True)
    for picture in pictures:
        for _ in range(_NUM_BLOCKS):
            top, left = torch.randint(_PICTURE_SIZE, (2,), generator=generator).tolist()
            height, width = torch.randint(8, _PICTURE_SIZE // 2, (2,), generator=generator).tolist()
            colour = torch.rand(3, 1, 1, generator=generator) * 2 - 1
            picture[:, top : top + height, left : left + width] = colour
    return pictures


def _rows(images: Tensor) -> Tensor:
    """(images, channels, height, width) to one row of channels for each pixel, in fp32."""
    return images.float().permute(0, 2, 3, 1).flatten(0, 2)
