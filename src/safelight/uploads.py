"""What a client sends as an image becomes the pixels that a generation starts from: upright, opaque, in the right size.

Whatever is in the file beside the pixels is dropped. Decoding takes tens of milliseconds, so it has a thread.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from safelight.errors import InvalidRequest
from safelight.generation import SourceImage
from safelight.model_spec import ModelSpec
from safelight.parameters import check_size, size_for_image

FORMATS = ("PNG", "JPEG", "WEBP")
DEFAULT_STRENGTH = 0.6
DEFAULT_MASKED_STRENGTH = 1.0
"""What a mask gives free is painted anew, whatever was under it."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what makes it upright."""
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8")
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, MemoryError, OverflowError, struct.error)
"""What Pillow raises on files that are cut short or make no sense."""


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


def is_image(content: bytes) -> bool:
    """Whether the first bytes are those of an image file, if not always of one that can be read."""
    return content.startswith(_SIGNATURES)


def fit_upload(
    upload: Upload,
    spec: ModelSpec,
    *,
    width: int | None,
    height: int | None,
    strength: float | None,
    max_pixels: int,
) -> FittedImage:
    """The upload as a source for `spec`; without width and height in its own size, as near as the model comes to it.

    Raises InvalidRequest naming the file's field.
    """
    image = _open(upload.image, field=upload.image_field, max_pixels=max_pixels)
    alpha, warnings = _alpha_of_mask(upload, image, max_pixels)
    own_width, own_height = size_for_image(spec, image.width, image.height)
    size = check_size(spec, width or own_width, height or own_height)
    if size != image.size:
        warnings += (f"{upload.image_field} was scaled from {image.width}x{image.height} to {size[0]}x{size[1]}",)
    source = SourceImage(
        pixels=_opaque(image).resize(size, Image.Resampling.LANCZOS).tobytes(),
        strength=_strength(strength, has_mask=alpha is not None),
        mask=None if alpha is None else ImageOps.invert(alpha).resize(size, Image.Resampling.LANCZOS).tobytes(),
    )
    return FittedImage(source=source, width=size[0], height=size[1], warnings=warnings)


def _alpha_of_mask(upload: Upload, image: Image.Image, max_pixels: int) -> tuple[Image.Image | None, tuple[str, ...]]:
    """The channel whose transparent pixels are painted anew: the mask's, or without a mask the image's own."""
    if upload.mask is None:
        alpha = _alpha(image)
        if alpha is None:
            return None, ()
        return alpha, (
            f"the transparent part of {upload.image_field} is painted anew; send an opaque one to change all",
        )
    mask = _open(upload.mask, field="mask", max_pixels=max_pixels)
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


def _open(content: bytes, *, field: str, max_pixels: int) -> Image.Image:
    """Decoded and upright, in RGB or RGBA. The size is checked before a pixel is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check(image, field, max_pixels)
            image.load()
            upright = _upright(_in_8_bits(image))
            return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidRequest(f"{field} has more than the {max_pixels} pixels that are read", field=field) from None
    except UnidentifiedImageError:
        raise InvalidRequest(f"{field} is no PNG, JPEG or WebP file", field=field) from None
    except _BROKEN as error:
        raise InvalidRequest(f"{field} is broken: {str(error)[:100]}", field=field) from None


def _check(image: Image.Image, field: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise InvalidRequest(
            f"{field} is {image.width}x{image.height}; at most {max_pixels} pixels are read, so send it smaller",
            field=field,
        )
    if getattr(image, "is_animated", False) and image.format in ("PNG", "WEBP"):  # JPEGs may hold a second view
        raise InvalidRequest(f"{field} is animated; send one still picture", field=field)


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says. Pillow's `exif_transpose` writes the EXIF again, and fails where that makes no sense."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, struct.error):  # of JPEGs it says nothing of such a head, of PNG and WebP it raises them
        turn = None
    return image if turn is None else image.transpose(turn)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Pillow scales 16 bits of colour by itself, but cuts 16 bits of grey off at 255, which is nearly all white."""
    return image.point(lambda grey: grey / 257).convert("L") if image.mode == "I;16" else image


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
