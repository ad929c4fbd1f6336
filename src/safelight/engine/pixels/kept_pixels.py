"""What a mask keeps of an upload, back in the picture: an autoencoder gives nothing back exactly as it was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from safelight.engine.pixels.autoencoder import Pixels
from safelight.picture.generation import SourceImage


def put_back(pixels: Pixels, source: SourceImage, *, width: int, seam: int) -> Pixels:
    """`pixels` where the mask paints anew, the source elsewhere; of both in the `seam` pixels beside what is new.

    The seam lies on the kept side, where both show the same: under the mask the source shows what is to go. `width` is
    the source's; a preview may be smaller by a whole factor. Integers alone are computed, so every device agrees.
    """
    assert source.mask is not None, "without a mask nothing is kept"
    height = len(source.mask) // width
    kept = Image.frombytes("RGB", (width, height), source.pixels)
    is_new = np.frombuffer(source.mask, np.uint8).reshape(height, width) >= 128
    share = Image.fromarray(_share_of_new(is_new, seam // 2))
    shrinkage = width // pixels.shape[1]
    return np.array(Image.composite(Image.fromarray(pixels), kept.reduce(shrinkage), share.reduce(shrinkage)))


def _share_of_new(is_new: npt.NDArray[np.bool_], half: int) -> Pixels:
    """255 where it is new, falling to 0 over twice `half`: what is new grows by `half`, and is blurred as far."""
    grown = _box_sums(is_new, half) > 0
    return np.asarray(_box_sums(grown, half) * 255 // (2 * half + 1) ** 2, np.uint8)


def _box_sums(values: npt.NDArray[np.bool_], half: int) -> npt.NDArray[np.int32]:
    """Of the square around each; at the edges of the picture they repeat."""
    sums = values.astype(np.int32)
    for _ in range(2):  # down the columns, then along the rows
        totals = np.cumsum(np.pad(sums, ((half + 1, half), (0, 0)), mode="edge"), axis=0, dtype=np.int32)
        sums = (totals[2 * half + 1 :] - totals[: -2 * half - 1]).T
    return sums
