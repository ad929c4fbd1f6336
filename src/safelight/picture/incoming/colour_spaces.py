"""The colours of a picture, as its file means them, become sRGB, which is what models are trained on and clients show.

By the ICC profile, or by what formats have in its place, made into a profile: PNG's cICP, gAMA and cHRM, AVIF's nclx,
and the EXIF of cameras for Adobe RGB. LittleCMS converts, relative to white and black; what sRGB lacks is clipped.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageCms

from safelight.errors import InvalidRequest
from safelight.picture.incoming.icc_profiles import Primaries, build_profile

MAX_PROFILE_BYTES = 4 * 1024 * 1024
"""The largest that printers' profiles come to; Pillow reads 1 MiB of a PNG's."""
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_DEVICE_CLASSES = ("mntr", "scnr", "prtr", "spac")
"""Profiles that say what numbers mean. Others are steps of a conversion."""
_NCLX = re.compile(rb"colrnclx(..)(..)", re.DOTALL)
_PQ_AND_HLG = (16, 18)
_D65 = (0.3127, 0.3290)
_BT709 = Primaries(_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_ADOBE_RGB = Primaries(_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_PRIMARIES: Mapping[int, Primaries] = {
    1: _BT709,
    2: _BT709,  # unspecified
    5: Primaries(_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: Primaries(_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Primaries(_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""ITU-T H.273, table 2."""
_EXPONENTS: Mapping[int, float | None] = {1: None, 2: None, 6: None, 13: None, 14: None, 15: None, 4: 2.2, 5: 2.8, 8: 1}
"""ITU-T H.273, table 3, as screens show it: None is sRGB's curve, which they use for video's as well."""


def in_srgb(colours: Image.Image, image: Image.Image, content: bytes, *, field: str) -> tuple[Image.Image, str | None]:
    """`colours` (L, RGB or CMYK) of the file `image` in sRGB as RGB; and a warning if what the file says is of no use.

    Raises InvalidRequest for what cannot be shown in sRGB.
    """
    try:
        profile = _profile_of(image, content, field)
        return colours.convert("RGB") if profile is None else _convert(colours, profile), None
    except (ValueError, OverflowError, struct.error, np.linalg.LinAlgError) as error:
        return colours.convert("RGB"), f"the colours of {field} were read as sRGB: {error}"


def _profile_of(image: Image.Image, content: bytes, field: str) -> bytes | None:
    """An ICC profile; None if the colours are sRGB's. The order within PNG is that of its third edition, 4.3."""
    if image.format == "PNG" and len(code_points := _chunk_of_png(content, b"cICP")) == 4:
        return _profile_of_code_points(code_points[0], code_points[1], field)
    if "icc_profile" not in image.info:
        return _profile_in_place_of_one(image, content, field)
    if not image.info["icc_profile"]:
        raise ValueError("its ICC profile is broken")
    return bytes(image.info["icc_profile"])


def _profile_in_place_of_one(image: Image.Image, content: bytes, field: str) -> bytes | None:
    match image.format:
        case "PNG" if "srgb" not in image.info:
            return _profile_of_gamma(image.info.get("gamma"), image.info.get("chromaticity"))
        case "AVIF" if found := _NCLX.search(content, 0, 2**16):
            return _profile_of_code_points(int.from_bytes(found[1]), int.from_bytes(found[2]), field)
        case "BMP":
            return _profile_of_bmp(content)
        case "JPEG" | "MPO" if _is_adobe_rgb(image):
            return build_profile(_ADOBE_RGB, 563 / 256)
    return None


def _chunk_of_png(content: bytes, name: bytes) -> bytes:
    """What the first chunk of that name before the pixels holds, or nothing. Pillow forgets what it does not know."""
    position = 8
    while content[position + 4 : position + 8] not in (b"IDAT", b""):
        length = int.from_bytes(content[position : position + 4])
        if content[position + 4 : position + 8] == name:
            return content[position + 8 : position + 8 + length]
        position += length + 12
    return b""


def _profile_of_bmp(content: bytes) -> bytes | None:
    """The one behind the pixels, if the header is of version 5 and says so ("MBED", lower byte first)."""
    size, space, start, length = (int.from_bytes(content[at : at + 4], "little") for at in (14, 70, 126, 130))
    return content[14 + start :][:length] if size == 124 and space == 0x4D424544 else None


def _profile_of_code_points(primaries: int, transfer: int, field: str) -> bytes | None:
    if transfer in _PQ_AND_HLG:
        raise InvalidRequest(f"{field} is brighter than a screen's white (HDR); save it as SDR", field=field)
    if primaries not in _PRIMARIES or transfer not in _EXPONENTS:
        raise ValueError(f"its colour space (primaries {primaries}, transfer {transfer} of H.273) is not known here")
    if _PRIMARIES[primaries] is _BT709 and _EXPONENTS[transfer] is None:
        return None
    return build_profile(_PRIMARIES[primaries], _EXPONENTS[transfer])


def _profile_of_gamma(gamma: float | None, chromaticity: Sequence[float] | None) -> bytes | None:
    """A gamma that is 1/2.2 to 5% stands for sRGB's curve if the primaries are sRGB's, as for libpng."""
    numbers = [number for pair in (_BT709.white, _BT709.red, _BT709.green, _BT709.blue) for number in pair]
    is_bt709 = chromaticity is None or np.allclose(chromaticity, numbers, atol=0.001)
    if is_bt709 and (gamma is None or abs(gamma * 2.2 - 1) <= 0.05):
        return None
    if gamma is not None and not 0.01 <= gamma <= 100:
        raise ValueError(f"its gamma of {gamma:g} makes no sense")
    if is_bt709 or chromaticity is None:
        return build_profile(_BT709, None if gamma is None else 1 / gamma)
    white, red, green, blue = zip(chromaticity[::2], chromaticity[1::2], strict=True)
    return build_profile(Primaries(white, red, green, blue), None if gamma is None else 1 / gamma)


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether a camera says so by the design rule for camera file systems (DCF 2.0): it embeds no profile then."""
    try:
        return str(image.getexif().get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)) == "R03"
    except (SyntaxError, struct.error, ValueError, TypeError, LookupError):
        return False


def _convert(colours: Image.Image, content: bytes) -> Image.Image:
    """Raises ValueError if the profile is of no use; one that is sRGB to 1/255 changes nothing."""
    if len(content) > MAX_PROFILE_BYTES:
        raise ValueError(f"its ICC profile has {len(content)} bytes, and {MAX_PROFILE_BYTES} are read")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
    except OSError:
        raise ValueError("its ICC profile is broken") from None
    space, device_class = profile.profile.xcolor_space.strip(), profile.profile.device_class
    mode = _MODES.get(space)
    if mode is None or device_class not in _DEVICE_CLASSES:
        raise ValueError(f"its ICC profile ({device_class}, {space}) is none of a picture's")
    if mode == "RGB" and colours.mode == "L":
        colours = colours.convert("RGB")
    if mode != colours.mode:
        raise ValueError(f"its ICC profile is for {space}, and its pixels are {colours.mode}")
    try:
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return colours.convert("RGB") if _is_identity(transform, mode) else _apply(colours, transform)
    except ImageCms.PyCMSError:
        raise ValueError("its ICC profile is broken") from None


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether it moves none of some thousand colours by more than rounding does."""
    if mode == "CMYK":
        return False
    levels = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(grid.astype(np.uint8)).convert(mode)
    difference = ImageChops.difference(_apply(probe, transform), probe.convert("RGB"))
    return int(np.asarray(difference).max()) <= 1


def _apply(colours: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(colours, transform)
    assert converted is not None, "not in place"
    return converted
