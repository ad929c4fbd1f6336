from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from safelight.generation import ImageFormat
from safelight.images import MEDIA_TYPES, encode


@pytest.fixture
def pixels() -> np.ndarray:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[::-1], (48, 1)), np.full((48, 64), 90, np.uint8)], axis=2)


def test_png_keeps_every_pixel(pixels: np.ndarray) -> None:
    content = encode(pixels, image_format="png")

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_lossy_formats_stay_close_at_full_quality(pixels: np.ndarray, image_format: ImageFormat) -> None:
    content = encode(pixels, image_format=image_format, image_quality=100)

    decoded = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    assert decoded.shape == pixels.shape
    assert np.abs(decoded - pixels).mean() < 3


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_lower_quality_makes_smaller_files(image_format: ImageFormat) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

    small, large = (encode(noise, image_format=image_format, image_quality=quality) for quality in (10, 95))

    assert len(small) < len(large) / 2


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_the_media_type_is_the_one_that_readers_detect(pixels: np.ndarray, image_format: ImageFormat) -> None:
    content = encode(pixels, image_format=image_format)

    assert Image.open(io.BytesIO(content)).get_format_mimetype() == MEDIA_TYPES[image_format]


def test_png_carries_text_in_any_script(pixels: np.ndarray) -> None:
    content = encode(pixels, image_format="png", text={"prompt": "ein Fuchs, 狐", "seed": "7"})

    assert Image.open(io.BytesIO(content)).text == {"prompt": "ein Fuchs, 狐", "seed": "7"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_equal_pixels_give_equal_bytes(pixels: np.ndarray, image_format: ImageFormat) -> None:
    first, second = (encode(pixels, image_format=image_format, text={"seed": "1"}) for _ in range(2))

    assert first == second
