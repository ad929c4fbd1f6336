"""A file from outside becomes one still picture as its sender sees it: upright, in sRGB, with what it has of alpha.

What is read is what every browser shows: those decoders face the whole web, and are kept for it. What else is in the
file is dropped.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

from safelight.errors import InvalidRequest
from safelight.picture.incoming.colour_spaces import in_srgb
from safelight.picture.incoming.file_parts import check_parts
from safelight.picture.incoming.jpeg_ends import END, lacks_only_its_end

_NAMES: Mapping[str, str] = {
    "PNG": "PNG",
    "JPEG": "JPEG",
    "WEBP": "WebP",
    **({"AVIF": "AVIF"} if features.check("avif") else {}),
    "GIF": "GIF",
    "BMP": "BMP",
}
"""As Pillow names a format -> as people do."""
READ = ", ".join(list(_NAMES.values())[:-1]) + " or BMP"
_SIGNATURES: Mapping[str, re.Pattern[bytes]] = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in {
        "PNG": rb"\x89PNG\r\n\x1a\n",
        "JPEG": rb"\xff\xd8\xff",
        "WebP": rb"RIFF....WEBP",
        "GIF": rb"GIF8",
        "BMP": rb"BM....\0\0\0\0",
        "AVIF": rb"....ftypavi[fs]",
        "HEIC": rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
        "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
        "JPEG XL": rb"\0\0\0\x0cJXL |\xff\x0a",
        "TIFF": rb"II[*+]\0|MM\0[*+]",
    }.items()
}
"""The first bytes of formats, whether they are read or refused by name."""
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
_SHORT_GREY = {"L;2": 3, "L;4": 15}
"""Pillow scales greys of 2 and 4 bits to 8, but not the one that is transparent."""
_RUN_LENGTHS = (1, 2)
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, MemoryError, OverflowError, struct.error),
    RuntimeError,  # of libavif
)
"""What Pillow raises on files that are cut short or make no sense."""


@dataclass(frozen=True, slots=True)
class StillPicture:
    """A picture that was read."""

    image: Image.Image
    """RGBA if any of it is said to be transparent, else RGB."""
    warnings: tuple[str, ...] = ()


def name_format(content: bytes) -> str | None:
    """The format that the first bytes are those of, if of any image's; not always of one that is read."""
    return next((name for name, signature in _SIGNATURES.items() if signature.match(content)), None)


def read_still_picture(content: bytes, *, field: str, max_pixels: int) -> StillPicture:
    """Raises InvalidRequest naming the field. Size and parts are checked before a pixel is decoded."""
    check_parts(content, field=field)
    try:
        try:
            return _read(content, field, max_pixels)
        except OSError:
            if not content.startswith(b"\xff\xd8") or not lacks_only_its_end(content):
                raise
            return _read(content + END, field, max_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidRequest(f"{field} has more than the {max_pixels} pixels that are read", field=field) from None
    except UnidentifiedImageError:
        raise InvalidRequest(_is_not_read(content, field), field=field) from None
    except _BROKEN as error:
        raise InvalidRequest(f"{field} is broken: {str(error)[:100]}", field=field) from None


def _is_not_read(content: bytes, field: str) -> str:
    name = name_format(content)
    if name in _NAMES.values():
        return f"{field} is broken: it begins as {name}, and what follows is none"
    return f"{field} is {name}, which is not read; send {READ}" if name else f"{field} is no {READ} file"


def _read(content: bytes, field: str, max_pixels: int) -> StillPicture:
    with Image.open(io.BytesIO(content), formats=tuple(_NAMES)) as image:
        _check(image, field, max_pixels)
        raw_mode = image.tile[0].args if image.format == "PNG" else ""
        image.load()
        colours, alpha = _split(image, str(raw_mode), content)
        still, warning = in_srgb(colours, image, content, field=field)
        if alpha is not None:
            still.putalpha(alpha)
        return StillPicture(_upright(still, image), () if warning is None else (warning,))


def _check(image: Image.Image, field: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise InvalidRequest(
            f"{field} is {image.width}x{image.height}; at most {max_pixels} pixels are read, so send it smaller",
            field=field,
        )
    if getattr(image, "is_animated", False) and image.format in _NAMES and image.format != "JPEG":
        raise InvalidRequest(f"{field} is animated; send one still picture", field=field)
    if (
        image.format == "BMP" and image.info.get("compression") in _RUN_LENGTHS
    ):  # Pillow decodes them in Python: 0.6 s a megapixel
        raise InvalidRequest(f"{field} is a BMP with run lengths, which is not read; save it as PNG", field=field)


def _split(image: Image.Image, raw_mode: str, content: bytes) -> tuple[Image.Image, Image.Image | None]:
    """Its colours as L, RGB or CMYK in 8 bits, and its alpha."""
    key = image.info.get("transparency")
    if raw_mode == "I;16B":  # Pillow itself cuts them off at 255, which is nearly all white
        grey = image.point(lambda value: value / 257).convert("L")
        return grey, None if key is None else _unlike(np.asarray(image) == key)
    if raw_mode == "RGB;16B" and key is not None:
        return image, _unlike(_is_colour_of_16_bits(content, key))
    if raw_mode in _SHORT_GREY and key is not None:
        greatest = _SHORT_GREY[raw_mode]
        image.info["transparency"] = (key & greatest) * 255 // greatest
    if image.has_transparency_data:
        whole = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        return whole.convert(whole.mode.removesuffix("A")), whole.getchannel("A")
    return image.convert({"1": "L", "L": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")), None


def _is_colour_of_16_bits(content: bytes, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a PNG has it. Of 16 bits Pillow keeps the upper 8; read with its bytes swapped, the lower ones."""
    matches = []
    for raw_mode, eight_bits in (("RGB;16B", [v >> 8 for v in colour]), ("RGB;16L", [v & 255 for v in colour])):
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.tile = [image.tile[0]._replace(args=raw_mode)]
            matches.append((np.asarray(image) == eight_bits).all(axis=2))
    return np.asarray(matches[0] & matches[1])


def _unlike(is_key: np.ndarray) -> Image.Image:
    """Alpha that is 0 where something is the colour that stands for transparency."""
    return Image.fromarray(np.where(is_key, 0, 255).astype(np.uint8))


def _upright(picture: Image.Image, image: Image.Image) -> Image.Image:
    """Turned as the EXIF of `image` says. Pillow's `exif_transpose` writes the EXIF again, and fails on some."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, struct.error):  # of JPEGs it says nothing of such a head, of PNG and WebP it raises them
        turn = None
    return picture if turn is None else picture.transpose(turn)
