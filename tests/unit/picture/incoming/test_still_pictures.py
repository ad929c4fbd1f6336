"""Which files are read, what of them is transparent, and when a file that was cut off is a picture all the same."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from safelight.errors import InvalidRequest
from safelight.picture.incoming.still_pictures import name_format
from tests.unit.picture.incoming.test_uploads import animated, encoded, fit, left_red, pixels_of, refusal, with_hole

READ = "PNG, JPEG, WebP, AVIF, GIF or BMP"


def noise(size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(seed).normal(128, 60, (height, width, 3)).clip(0, 255).astype(np.uint8)
    pixels[..., 1] = np.linspace(0, 255, width)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("format", "tolerance"), [("AVIF", 12), ("GIF", 0), ("BMP", 0)])
def test_what_browsers_show_is_read(format: str, tolerance: int) -> None:
    options = {"quality": 100, "subsampling": "4:4:4"} if format == "AVIF" else {}

    fitted = fit(encoded(left_red(), format, **options))

    assert fitted.warnings == ()
    difference = np.abs(pixels_of(fitted).astype(int) - np.asarray(left_red()))[:, (4, -4)]
    assert difference.max() <= tolerance


@pytest.mark.parametrize("format", ["GIF", "AVIF", "WEBP"])
def test_what_is_transparent_is_painted_anew_in_every_format_that_has_it(format: str) -> None:
    fitted = fit(encoded(with_hole(), format))

    assert fitted.source.mask is not None
    mask = np.frombuffer(fitted.source.mask, np.uint8).reshape(64, 64)
    assert (mask[:, 4], mask[:, -4]) == (pytest.approx(255), pytest.approx(0))


def heic(brand: bytes = b"heic") -> bytes:
    """As an iPhone's begins."""
    return b"\0\0\0\x28ftyp" + brand + b"\0\0\0\0mif1MiHBMiPrmiafheic" + b"\0\0\0\x10meta" + bytes(400)


NOT_READ: dict[str, tuple[bytes, str]] = {
    "HEIC": (heic(), "HEIC"),
    "HEIC of several": (heic(b"mif1"), "HEIC"),
    "TIFF": (encoded(left_red(), "TIFF"), "TIFF"),
    "TIFF of a Mac": (b"MM\0*" + bytes(100), "TIFF"),
    "JPEG 2000": (encoded(left_red(), "JPEG2000"), "JPEG 2000"),
    "JPEG 2000 without a box": (encoded(left_red(), "JPEG2000", no_jp2=True), "JPEG 2000"),
    "JPEG XL": (b"\xff\x0a" + bytes(100), "JPEG XL"),
}


@pytest.mark.parametrize(("content", "name"), NOT_READ.values(), ids=NOT_READ)
def test_other_formats_are_refused_by_name_with_those_that_are_read(content: bytes, name: str) -> None:
    assert refusal(content).message == f"image is {name}, which is not read; send {READ}"


def test_what_is_no_image_at_all_is_told_what_is_read() -> None:
    assert refusal(b"a fox").message == f"image is no {READ} file"


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "AVIF"])
def test_what_moves_is_refused(format: str) -> None:
    assert refusal(animated(format)).message == "image is animated; send one still picture"


def test_a_bmp_with_run_lengths_is_refused() -> None:
    content = bytearray(encoded(left_red().quantize(16), "BMP"))
    content[30:34] = struct.pack("<I", 1)

    assert "run lengths" in refusal(bytes(content)).message


def png(depth: int, kind: int, rows: np.ndarray, *, key: bytes = b"", palette: bytes = b"") -> bytes:
    """A PNG of 64 columns, of samples that are already packed into bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height = len(rows)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, height, depth, kind, 0, 0, 0))
        + (chunk(b"PLTE", palette) if palette else b"")
        + (chunk(b"tRNS", key) if key else b"")
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def ramp(depth: int) -> np.ndarray:
    """64x64 greys of that depth, left to right and back, so that each comes often."""
    column = np.arange(64) * max(1, (2**depth - 1) // 63) % 2**depth
    return np.tile(column, (64, 1))


def packed(samples: np.ndarray, depth: int) -> np.ndarray:
    if depth == 16:
        return samples.astype(">u2").view(np.uint8).reshape(len(samples), -1)
    bits = (samples[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(len(samples), -1).astype(np.uint8), axis=1)


def mask_of(content: bytes) -> np.ndarray:
    fitted = fit(content)
    assert fitted.source.mask is not None
    return np.frombuffer(fitted.source.mask, np.uint8).reshape(fitted.height, fitted.width) == 255


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_grey_is_transparent_at_every_depth(depth: int) -> None:
    samples = ramp(depth)
    key = int(samples[0, 63])

    content = png(depth, 0, packed(samples, depth), key=struct.pack(">H", key))

    assert np.array_equal(mask_of(content), samples == key)
    opaque = samples != key
    expected = samples * 255 / (2**depth - 1)
    assert np.abs(pixels_of(fit(content))[..., 0].astype(int) - expected)[opaque].max() <= 1


@pytest.mark.parametrize("depth", [8, 16])
def test_one_colour_is_transparent_at_every_depth_and_its_neighbours_are_not(depth: int) -> None:
    samples = np.stack([ramp(8) // 8, ramp(8) * 0 + 5, ramp(8) * 0 + 9], axis=-1)
    key = (3, 5, 9)

    content = png(depth, 2, packed(samples.reshape(64, -1), depth), key=struct.pack(">3H", *key))

    assert np.array_equal(mask_of(content), (samples == key).all(axis=2))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_colours_of_a_palette_are_transparent_at_every_depth(depth: int) -> None:
    samples = np.tile(np.arange(64) % min(16, 2**depth), (64, 1))
    palette = bytes(range(3 * min(16, 2**depth)))

    content = png(depth, 3, packed(samples, depth), key=b"\xff\0", palette=palette)

    assert np.array_equal(mask_of(content), samples == 1)


@pytest.mark.parametrize("kind", [4, 6], ids=["grey", "colour"])
@pytest.mark.parametrize("depth", [8, 16])
def test_an_alpha_channel_is_one_at_every_depth(kind: int, depth: int) -> None:
    grey = ramp(8)
    alpha = np.where(np.arange(64) % 3 == 0, 0, 2**depth - 1) * np.ones((64, 1), int)
    samples = np.stack([grey * (257 if depth == 16 else 1)] * (1 if kind == 4 else 3) + [alpha], axis=-1)

    content = png(depth, kind, packed(samples.reshape(64, -1), depth))

    assert np.array_equal(mask_of(content), alpha == 0)
    assert np.abs(pixels_of(fit(content))[..., 0].astype(int) - grey)[alpha > 0].max() <= 1


WHOLE: dict[str, bytes] = {
    "JPEG": encoded(noise(), "JPEG"),
    "grey JPEG": encoded(noise().convert("L"), "JPEG", quality=95),
    "flat JPEG": encoded(Image.new("RGB", (64, 48), (200, 30, 40)), "JPEG"),
    "JPEG of full colour": encoded(noise(), "JPEG", subsampling=0, quality=90),
    "JPEG with restarts": encoded(noise(), "JPEG", restart_marker_rows=1),
    "JPEG with many restarts": encoded(noise(), "JPEG", restart_marker_blocks=1),
    "progressive JPEG": encoded(noise(), "JPEG", progressive=True),
    "progressive JPEG with restarts": encoded(noise(), "JPEG", progressive=True, restart_marker_rows=1),
    "JPEG of inks": encoded(noise().convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("num_bytes", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_is_read(content: bytes, num_bytes: int) -> None:
    assert np.array_equal(pixels_of(fit(content[:-num_bytes])), pixels_of(fit(content)))


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_a_jpeg_that_lacks_any_of_its_pixels_is_refused(content: bytes) -> None:
    whole = pixels_of(fit(content))

    cuts = {*range(3, 40), *range(40, len(content), 37)} | {len(content) - at for at in _markers(content)}
    for num_bytes in sorted(cut for cut in cuts if 2 < cut < len(content)):
        pixels = read_or_refused(content[:-num_bytes])
        assert pixels is None or np.array_equal(pixels, whole), num_bytes  # the last bits may be nothing but padding


def read_or_refused(content: bytes) -> np.ndarray | None:
    """The pixels; None if it is refused. Whatever else is raised fails the test."""
    try:
        return pixels_of(fit(content))
    except InvalidRequest:
        return None


def _markers(content: bytes) -> list[int]:
    """Where a cut is hardest to see: just before a restart, a table or another scan."""
    pairs = itertools.pairwise(content)
    return [at for at, (first, second) in enumerate(pairs) if first == 0xFF and second not in (0, 0xFF)]


OTHERS: dict[str, bytes] = {
    "PNG": encoded(noise()),
    "WebP": encoded(noise(), "WEBP"),
    "WebP without loss": encoded(noise(), "WEBP", lossless=True),
    "AVIF": encoded(noise(), "AVIF"),
    "GIF": encoded(noise(), "GIF"),
    "BMP": encoded(noise(), "BMP"),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_file_of_any_format_that_lacks_pixels_is_refused(content: bytes) -> None:
    whole = pixels_of(fit(content))

    for num_bytes in {*range(1, 60), *range(60, len(content), 53)}:
        pixels = read_or_refused(content[:-num_bytes])
        assert pixels is None or np.array_equal(pixels, whole), num_bytes


@pytest.mark.parametrize("content", [*OTHERS.values(), WHOLE["JPEG"]], ids=[*OTHERS, "JPEG"])
def test_whatever_is_changed_in_a_file_it_is_read_or_refused_in_words(content: bytes) -> None:
    dice = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(content)
        for place in dice.integers(0, len(content) if dice.random() < 0.5 else 200, 4):
            changed[place % len(content)] = int(dice.integers(256))
        read_or_refused(bytes(changed))


def test_formats_are_known_by_their_first_bytes() -> None:
    files = {name: encoded(left_red(), name.upper()) for name in ("PNG", "JPEG", "WebP", "GIF", "BMP", "AVIF", "TIFF")}

    assert {name: name_format(content) for name, content in files.items()} == {name: name for name in files}
    assert name_format(heic()) == "HEIC"
    assert not any(map(name_format, [b"", b'{"inputs": "a"}', b"a fox", b"BM" + bytes(4) + b"a fox", b"RIFFabcdWAVE"]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_every_format_that_can_be_turned_is_upright(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters = Image.new("RGB", (64, 32), "blue")
    quarters.paste("red", (0, 0, 32, 16))
    quarters.paste("lime", (32, 16, 64, 32))

    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(quarters, exif=exif)))))

    turned = pixels_of(fit(encoded(quarters, format, exif=exif, quality=90)))

    height, width = upright.shape[:2]
    assert turned.shape == upright.shape
    for row, column in itertools.product((height // 4, 3 * height // 4), (width // 4, 3 * width // 4)):
        assert np.abs(turned[row, column].astype(int) - upright[row, column]).max() < 40
