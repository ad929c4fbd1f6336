"""The pixels that a generation starts from are those that the sender sees, whatever colour space the file is in."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests import icc
from tests.unit.picture.incoming.test_uploads import encoded, fit, pixels_of, refusal

P3 = icc.profile(icc.DISPLAY_P3, icc.SRGB_CURVE)
SPACES: dict[str, tuple[bytes, Any, float | None]] = {
    "Display P3": (P3, icc.DISPLAY_P3, None),
    "Adobe RGB": (icc.profile(icc.ADOBE_RGB, 563 / 256, version=2), icc.ADOBE_RGB, 563 / 256),
    "ProPhoto": (icc.profile(icc.PRO_PHOTO, 461 / 256, version=2), icc.PRO_PHOTO, 461 / 256),
}


def patches(seed: int = 0) -> np.ndarray:
    """64x64 in sixteen colours, which no format blurs, from dark to saturated."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    colours[0, :3] = [(255, 255, 255), (0, 0, 0), (128, 128, 128)]
    return colours.repeat(16, 0).repeat(16, 1)


def middles(pixels: np.ndarray) -> np.ndarray:
    return pixels[8::16, 8::16].astype(int)


def distance(content: bytes, expected: np.ndarray) -> int:
    """The greatest between the patches of a file as it is read, and what they should be."""
    return int(np.abs(middles(pixels_of(fit(content))) - middles(expected)).max())


LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}}
LOSSY: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("format", LOSSLESS | LOSSY)
def test_the_profile_of_a_file_says_what_its_colours_are(format: str, space: str) -> None:
    profile, colorants, exponent = SPACES[space]
    content = encoded(Image.fromarray(patches()), format, icc_profile=profile, **(LOSSLESS | LOSSY)[format])

    assert np.abs(middles(patches()) - middles(icc.to_srgb(patches(), colorants, exponent))).mean() > 4
    tolerance = 2 if format in LOSSLESS else 8  # near black, a step of a wide space is several of sRGB's
    assert distance(content, icc.to_srgb(patches(), colorants, exponent)) <= tolerance
    assert fit(content).warnings == ()


def test_transparency_and_palettes_keep_their_place_when_colours_are_converted() -> None:
    pixels = np.dstack([patches(), np.full((64, 64), 255, np.uint8)])
    pixels[:, :32, 3] = 0
    content = encoded(Image.fromarray(pixels), icc_profile=P3)
    palette = encoded(Image.fromarray(patches()).quantize(16, dither=Image.Dither.NONE), icc_profile=P3)

    fitted = fit(content)

    assert fitted.source.mask == (np.where(pixels[..., 3] == 0, 255, 0).astype(np.uint8)).tobytes()
    expected = icc.to_srgb(patches(), icc.DISPLAY_P3, None)
    assert np.abs(pixels_of(fitted)[:, 32:].astype(int) - expected[:, 32:]).max() <= 2
    assert distance(palette, expected) <= 2


def test_a_profile_that_is_srgb_changes_no_pixel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)

    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), icc.profile(icc.SRGB, None)):
        assert np.array_equal(pixels_of(fit(encoded(Image.fromarray(noise), icc_profile=profile))), noise)


def test_grey_has_profiles_of_its_own_and_may_have_one_of_colours() -> None:
    grey = patches()[..., 0]
    lighter = icc.profile(None, 1.0, space=b"GRAY")
    expected = icc.to_srgb(grey[..., None].repeat(3, 2), icc.SRGB, 1.0)

    assert distance(encoded(Image.fromarray(grey), icc_profile=lighter), expected) <= 2
    assert distance(encoded(Image.fromarray(grey).convert("LA"), icc_profile=lighter), expected) <= 2
    assert distance(encoded(Image.fromarray(grey), icc_profile=P3), grey[..., None].repeat(3, 2)) <= 2


def cmyk_profile() -> bytes:
    """A printer's, as small as can be: two points for each ink, from L* 100 without any to L* 14 with all of them."""
    grid = np.stack(np.meshgrid(*[(0, 1)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lightness = 100 * (1 - 0.3 * grid[:, :3].mean(axis=1)) * (1 - 0.8 * grid[:, 3])
    lab = np.stack([lightness * 655.35, np.full(16, 32896), np.full(16, 32896)], axis=-1)
    ramp = struct.pack(">HH", 0, 65535)
    table = b"mft2" + bytes(4) + bytes((4, 3, 2, 0)) + icc.fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
    table += ramp * 4 + lab.round().astype(">u2").tobytes() + ramp * 3
    white = b"XYZ " + bytes(4) + icc.fixed(0.9642, 1.0, 0.8249)
    names = (b"A2B0", b"A2B1", b"wtpt")
    places = [(168, len(table)), (168, len(table)), (168 + len(table), len(white))]
    tags = b"".join(name + struct.pack(">II", *place) for name, place in zip(names, places, strict=True))
    size = 168 + len(table) + len(white)
    head = struct.pack(">I4xI4s4s4s12x4s28x", size, 2 << 24, b"prtr", b"CMYK", b"Lab ", b"acsp")
    return head + icc.fixed(0.9642, 1.0, 0.8249) + bytes(48) + struct.pack(">I", 3) + tags + table + white


def test_inks_become_what_their_profile_says() -> None:
    def read(inks: tuple[int, ...]) -> list[int]:
        content = encoded(Image.new("CMYK", (64, 64), inks), "JPEG", icc_profile=cmyk_profile(), quality=100)
        pixel: list[int] = pixels_of(fit(content))[32, 32].tolist()
        return pixel

    assert min(read((0, 0, 0, 0))) >= 253
    assert np.abs(np.array(read((255, 255, 255, 255))) - 37).max() <= 2
    assert 120 < read((255, 0, 0, 0))[0] < 240  # where Pillow alone makes cyan, this printer's ink is a light grey
    assert np.ptp(read((255, 0, 0, 0))) <= 4


BROKEN: dict[str, bytes] = {
    "nothing of a profile": b"no profile at all" * 20,
    "cut": P3[:200],
    "a table that points outside": P3[:132] + P3[132:].replace(struct.pack(">I", 20), b"\xff\xff\xff\xf0"),
    "of other pixels": icc.profile(None, 2.2, space=b"GRAY"),
    "a step of a conversion": P3[:12] + b"link" + P3[16:],
}


@pytest.mark.parametrize("profile", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_a_profile_that_is_of_no_use_is_left_out_and_the_answer_says_so(format: str, profile: bytes) -> None:
    fitted = fit(encoded(Image.fromarray(patches()), format, icc_profile=profile, **LOSSLESS[format]))

    assert np.array_equal(pixels_of(fitted), patches())
    assert fitted.warnings[0].startswith("the colours of image were read as sRGB: its ICC profile ")


def test_a_profile_that_arrives_in_pieces_but_not_all_of_them_is_left_out_too() -> None:
    large = P3 + bytes(70_000)
    content = encoded(Image.fromarray(patches()), "JPEG", icc_profile=struct.pack(">I", len(large)) + large[4:])
    second = content.index(b"ICC_PROFILE\0\x02\x02") - 4
    length = int.from_bytes(content[second + 2 : second + 4])

    fitted = fit(content[:second] + content[second + 2 + length :])

    assert fitted.warnings == ("the colours of image were read as sRGB: its ICC profile is broken",)


def test_a_profile_larger_than_any_is_not_read() -> None:
    content = encoded(Image.fromarray(patches()), "WEBP", icc_profile=P3 + bytes(5_000_000), lossless=True)

    assert fit(content).warnings[0].endswith(f"its ICC profile has {len(P3) + 5_000_000} bytes, and 4194304 are read")


def with_chunks(*chunks: tuple[bytes, bytes], pixels: np.ndarray | None = None, **options: Any) -> bytes:
    """A PNG with these behind its header."""
    whole = encoded(Image.fromarray(patches() if pixels is None else pixels), **options)
    added = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return whole[:33] + added + whole[33:]


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def chromaticities(*numbers: float) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(number * 100_000) for number in numbers))


SRGB_CHROMATICITIES = chromaticities(0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE_CHROMATICITIES = chromaticities(0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def test_png_may_say_by_gamma_and_chromaticities_what_its_colours_are() -> None:
    adobe = icc.to_srgb(patches(), icc.ADOBE_RGB, 2.2)
    linear = icc.to_srgb(patches(), icc.SRGB, 1.0)

    assert distance(with_chunks(gamma(1 / 2.2), ADOBE_CHROMATICITIES), adobe) <= 2
    assert distance(with_chunks(gamma(1.0)), linear) <= 2
    assert distance(with_chunks(gamma(1.0), SRGB_CHROMATICITIES), linear) <= 2
    grey = patches()[..., 0]
    assert distance(with_chunks(gamma(1.0), pixels=grey), icc.to_srgb(np.dstack([grey] * 3), icc.SRGB, 1.0)) <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        [gamma(0.45455)],
        [gamma(0.45455), SRGB_CHROMATICITIES],
        [SRGB_CHROMATICITIES],
        [(b"sRGB", b"\0"), gamma(1.0), ADOBE_CHROMATICITIES],
        [(b"cICP", bytes((1, 13, 0, 1))), gamma(1.0)],
    ],
)
def test_what_stands_for_srgb_changes_no_pixel(chunks: list[tuple[bytes, bytes]]) -> None:
    assert np.array_equal(pixels_of(fit(with_chunks(*chunks))), patches())


def test_the_code_points_of_a_png_come_before_its_profile() -> None:
    content = with_chunks((b"cICP", bytes((12, 13, 0, 1))), icc_profile=SPACES["ProPhoto"][0])

    assert distance(content, icc.to_srgb(patches(), icc.DISPLAY_P3, None)) <= 2


def avif(primaries: int, transfer: int) -> bytes:
    """An AVIF without a profile, as phones make them."""
    content = encoded(Image.fromarray(patches()), "AVIF", quality=100, subsampling="4:4:4")
    found = content.index(b"colrnclx") + 8
    return content[:found] + struct.pack(">HH", primaries, transfer) + content[found + 4 :]


def test_an_avif_without_a_profile_has_code_points() -> None:
    assert distance(avif(12, 13), icc.to_srgb(patches(), icc.DISPLAY_P3, None)) <= 8
    assert distance(avif(1, 13), patches()) <= 4


@pytest.mark.parametrize("make", [lambda: with_chunks((b"cICP", bytes((9, 16, 0, 1)))), lambda: avif(9, 18)])
def test_what_is_brighter_than_white_is_refused(make: Callable[[], bytes]) -> None:
    assert refusal(make()).message == "image is brighter than a screen's white (HDR); save it as SDR"


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"cICP", bytes((77, 13, 0, 1)))],
        [(b"cICP", bytes((1, 200, 0, 1)))],
        [gamma(0.0)],
        [gamma(40_000)],
        [chromaticities(0, 0, 0, 0, 0, 0, 0, 0)],
        [chromaticities(0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)],
        [chromaticities(0.3127, 0.00001, 0.64, 0.00001, 0.3, 0.00001, 0.15, 0.00001)],
    ],
)
def test_a_colour_space_that_makes_no_sense_is_left_out_and_the_answer_says_so(chunks: Any) -> None:
    fitted = fit(with_chunks(*chunks))

    assert np.array_equal(pixels_of(fitted), patches())
    assert fitted.warnings[0].startswith("the colours of image were read as sRGB: ")


def test_a_camera_says_by_exif_that_its_colours_are_adobe_rgb() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    content = encoded(Image.fromarray(patches()), "JPEG", quality=100, subsampling=0, exif=exif)

    assert distance(content, icc.to_srgb(patches(), icc.ADOBE_RGB, 563 / 256)) <= 8


def test_a_bmp_may_have_a_profile_behind_its_pixels() -> None:
    plain = encoded(Image.fromarray(patches()), "BMP")
    pixels = plain[54:]
    header = bytearray(plain[14:54] + bytes(84))
    header[0:4] = struct.pack("<I", 124)
    header[56:60] = b"DEBM"
    header[112:120] = struct.pack("<II", 124 + len(pixels), len(P3))
    start = b"BM" + struct.pack("<IxxxxI", 14 + 124 + len(pixels) + len(P3), 14 + 124)

    assert distance(start + header + pixels + P3, icc.to_srgb(patches(), icc.DISPLAY_P3, None)) <= 2
    assert distance(start + header[:56] + b"BGRs" + header[60:] + pixels + P3, patches()) == 0
