"""What a client sends as an image becomes the pixels that a generation starts from: upright, opaque, in the right size.

Whatever is in the file beside the pixels is dropped. Decoding takes tens of milliseconds, so it has a thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from safelight.errors import InvalidRequest
from safelight.model.spec import ModelSpec
from safelight.picture.generation import SourceImage
from safelight.picture.incoming.still_pictures import read_still_picture
from safelight.picture.parameters import size_for_image, size_in_force

DEFAULT_STRENGTH = 0.6
DEFAULT_MASKED_STRENGTH = 1.0
"""What a mask gives free is painted anew, whatever was under it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """The files of a request, and what the client calls the first one."""

    image: bytes
    mask: bytes | None = None
    image_field: str = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedImage:
    """The source of a request, in the size that it asks for."""

    source: SourceImage
    width: int
    height: int
    warnings: tuple[str, ...] = ()


def fit_upload(
    upload: Upload,
    spec: ModelSpec,
    *,
    width: int | None,
    height: int | None,
    fits_size: bool = False,
    strength: float | None,
    max_pixels: int,
) -> FittedImage:
    """The upload as a source for `spec`; without width and height in its own size, as near as the model comes to it.

    Raises InvalidRequest naming the file's field.
    """
    still = read_still_picture(upload.image, field=upload.image_field, max_pixels=max_pixels)
    image = still.image
    alpha, warnings = _alpha_of_mask(upload, image, max_pixels)
    own_width, own_height = size_for_image(spec, image.width, image.height)
    size, size_warnings = size_in_force(
        spec, own_width if width is None else width, own_height if height is None else height, fits=fits_size
    )
    warnings += size_warnings
    if size != image.size:
        warnings += (f"{upload.image_field} was scaled from {image.width}x{image.height} to {size[0]}x{size[1]}",)
    source = SourceImage(
        pixels=_opaque(image).resize(size, Image.Resampling.LANCZOS).tobytes(),
        strength=_strength(strength, has_mask=alpha is not None),
        mask=None if alpha is None else ImageOps.invert(alpha).resize(size, Image.Resampling.LANCZOS).tobytes(),
    )
    return FittedImage(source=source, width=size[0], height=size[1], warnings=still.warnings + warnings)


def _alpha_of_mask(upload: Upload, image: Image.Image, max_pixels: int) -> tuple[Image.Image | None, tuple[str, ...]]:
    """The channel whose transparent pixels are painted anew: the mask's, or without a mask the image's own."""
    if upload.mask is None:
        alpha = _alpha(image)
        if alpha is None:
            return None, ()
        return alpha, (
            f"the transparent part of {upload.image_field} is painted anew; send an opaque one to change all",
        )
    mask = read_still_picture(upload.mask, field="mask", max_pixels=max_pixels).image
    alpha = _alpha(mask)
    if alpha is None:
        raise InvalidRequest("mask has no transparent pixels; they say what is painted anew", field="mask")
    if mask.size != image.size:
        raise InvalidRequest(
            f"mask is {mask.width}x{mask.height} but {upload.image_field} is {image.width}x{image.height}; they must "
            "have one size",
            field="mask",
        )
    return alpha, ()


def _alpha(image: Image.Image) -> Image.Image | None:
    """The alpha channel, if anything is more transparent than not."""
    if image.mode != "RGBA":
        return None
    alpha = image.getchannel("A")
    return alpha if np.asarray(alpha).min() < 128 else None


def _opaque(image: Image.Image) -> Image.Image:
    """On white, which is what a transparent picture is mostly seen on."""
    if image.mode == "RGB":
        return image
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


def _strength(strength: float | None, *, has_mask: bool) -> float:
    if strength is not None:
        return strength
    return DEFAULT_MASKED_STRENGTH if has_mask else DEFAULT_STRENGTH
