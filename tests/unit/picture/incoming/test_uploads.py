"""What a client sends as an image becomes the pixels that a generation starts from, or is refused in words."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from safelight.errors import InvalidRequest
from safelight.picture.incoming.uploads import FittedImage, Upload, fit_upload
from safelight.picture.parameters import size_for_image
from tests.fakes import FAKE_SPEC

SQUARE = (64, 64)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def left_red(size: tuple[int, int] = SQUARE) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    return image


def with_hole(size: tuple[int, int] = SQUARE) -> Image.Image:
    """Transparent on the left half."""
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    return image


def fit(image: bytes, mask: bytes | None = None, **options: Any) -> FittedImage:
    defaults: dict[str, Any] = {"width": None, "height": None, "strength": None, "max_pixels": 1_000_000}
    return fit_upload(Upload(image=image, mask=mask), FAKE_SPEC, **defaults | options)


def pixels_of(fitted: FittedImage) -> np.ndarray:
    return np.frombuffer(fitted.source.pixels, np.uint8).reshape(fitted.height, fitted.width, 3)


def refusal(image: bytes, mask: bytes | None = None, **options: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        fit(image, mask, **options)
    return caught.value


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_an_image_that_fits_keeps_its_pixels(format: str) -> None:
    fitted = fit(encoded(left_red(), format, quality=100))

    assert (fitted.width, fitted.height, fitted.warnings) == (64, 64, ())
    assert fitted.source.strength == 0.6
    assert np.abs(pixels_of(fitted)[:, (8, -8)].astype(int) - [(255, 0, 0), (0, 0, 255)]).max() < 12


@pytest.mark.parametrize(
    ("mode", "colour"), [("L", 255), ("P", 255), ("1", 1), ("LA", (255, 255)), ("CMYK", (0, 0, 0, 0)), ("I;16", 65535)]
)
def test_other_kinds_of_pixels_become_rgb(mode: str, colour: Any) -> None:
    image = Image.new(mode, SQUARE, colour)

    fitted = fit(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))

    assert pixels_of(fitted).shape == (64, 64, 3)


def test_grey_of_16_bits_stays_grey() -> None:
    grey = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))

    fitted = fit(encoded(Image.fromarray(grey)))

    assert pixels_of(fitted)[0, (0, 21, 42, 63), 0].tolist() == [0, 85, 170, 255]


def test_the_rotation_in_exif_is_honoured() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise: the left comes to the top

    fitted = fit(encoded(left_red((64, 32)), "JPEG", exif=exif, quality=100))

    assert (fitted.width, fitted.height) == (32, 64)
    top, bottom = pixels_of(fitted)[4, 16], pixels_of(fitted)[-4, 16]
    assert top[0] > 200 > top[2]
    assert bottom[2] > 200 > bottom[0]


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((64, 64), (64, 64)),
        ((100, 60), (96, 64)),
        ((4000, 3000), (512, 384)),
        ((8, 8), (16, 16)),
        ((3000, 8), (512, 16)),
    ],
)
def test_the_size_is_the_images_own_as_near_as_the_model_comes(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert size_for_image(FAKE_SPEC, *size) == fitted


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_of_exif_is_turned_upright_as_pillow_does(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.effect_noise((64, 32), 90).convert("RGB"), exif=exif)

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))

    assert np.array_equal(pixels_of(fit(content)), np.asarray(upright))


def test_exif_that_makes_no_sense_keeps_no_image_from_being_read() -> None:
    orientation = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    text_for_a_number = struct.pack(">HHI4s", 0x0117, 2, 4, b"one")
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + orientation + text_for_a_number + bytes(4)

    fitted = fit(encoded(left_red((64, 32)), "JPEG", exif=exif))

    assert (fitted.width, fitted.height) == (32, 64)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*", b"Exif\0\0no TIFF at all", b"MM"])
def test_exif_that_is_none_keeps_no_image_from_being_read(format: str, exif: bytes) -> None:
    fitted = fit(encoded(left_red((64, 32)), format, exif=exif))

    assert (fitted.width, fitted.height) == (64, 32)


def test_an_image_that_is_scaled_says_so() -> None:
    assert fit(encoded(left_red((100, 60)))).warnings == ("image was scaled from 100x60 to 96x64",)


def test_a_size_that_was_asked_for_is_the_size() -> None:
    fitted = fit(encoded(left_red()), width=128, height=96)

    assert (fitted.width, fitted.height) == (128, 96)
    assert refusal(encoded(left_red()), width=100).field == "width"


def test_transparent_pixels_of_the_mask_are_painted_anew() -> None:
    fitted = fit(encoded(left_red()), encoded(with_hole()))

    assert fitted.source.mask is not None
    mask = np.frombuffer(fitted.source.mask, np.uint8).reshape(64, 64)
    assert (mask[:, :32] == 255).all()
    assert (mask[:, 32:] == 0).all()
    assert fitted.source.strength == 1.0


def test_without_a_mask_the_images_own_transparent_part_is_painted_anew() -> None:
    fitted = fit(encoded(with_hole()))

    assert fitted.source.mask is not None
    assert "transparent part" in fitted.warnings[0]
    assert (pixels_of(fitted)[:, :32] == 255).all()


def test_an_alpha_channel_that_hides_nothing_is_no_mask() -> None:
    assert fit(encoded(left_red().convert("RGBA"))).source.mask is None


def test_a_mask_of_another_size_is_refused() -> None:
    error = refusal(encoded(left_red()), encoded(with_hole((32, 64))))

    assert (error.field, error.message) == ("mask", "mask is 32x64 but image is 64x64; they must have one size")


def test_a_mask_without_transparent_pixels_is_refused() -> None:
    assert "no transparent pixels" in refusal(encoded(left_red()), encoded(left_red())).message


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animated(format: str) -> bytes:
    return encoded(left_red(), format, save_all=True, append_images=[with_hole().convert("RGB")])


def with_text_bomb() -> bytes:
    """A text chunk of 100 megabytes, in 100 kilobytes."""
    data = b"Comment\0\0" + zlib.compress(b"a" * 100_000_000)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    whole = encoded(left_red())
    return whole[:33] + chunk + whole[33:]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: b"", "no PNG, JPEG"),
        (lambda: b"a fox", "no PNG, JPEG"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG"),
        (lambda: encoded(left_red((512, 512)))[:300], "broken"),
        (lambda: encoded(left_red(), "JPEG")[:400], "broken"),
        (lambda: encoded(left_red(), "WEBP")[:60], ""),
        (lambda: png_of_size(64, 64), "broken"),
        (lambda: png_of_size(1001, 1000), "at most 1000000 pixels"),
        (lambda: png_of_size(60_000, 60_000), "1000000 pixels"),
        (lambda: png_of_size(12_000, 12_000), "1000000 pixels"),
        (lambda: animated("PNG"), "animated"),
        (lambda: animated("WEBP"), "animated"),
        (lambda: animated("GIF"), "animated"),
        (lambda: animated("AVIF"), "animated"),
        (with_text_bomb, ""),
    ],
)
def test_a_file_that_is_no_still_picture_of_bounded_size_is_refused(content: Any, words: str) -> None:
    error = refusal(content())

    assert error.field == "image"
    assert words in error.message
