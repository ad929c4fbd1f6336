from __future__ import annotations

import io
import json
import struct
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from safelight.errors import InvalidRequest
from safelight.picture.files import MEDIA_TYPES, decode, encode, encode_preview
from safelight.picture.generation import ImageFormat
from tests.recipes import RECIPE


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


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_equal_pixels_and_recipes_give_equal_bytes(pixels: np.ndarray, image_format: ImageFormat) -> None:
    first, second = (encode(pixels, image_format=image_format, recipe=RECIPE) for _ in range(2))

    assert first == second


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 3, 3), (64, 48, 3)])
def test_a_preview_as_png_keeps_every_pixel(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    preview = decode(encode_preview(noise, image_format="png"))

    assert preview.image_format == "png"
    assert np.array_equal(preview.pixels, noise)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_a_lossy_preview_stays_close(pixels: np.ndarray, image_format: ImageFormat) -> None:
    preview = decode(encode_preview(pixels, image_format=image_format))

    assert preview.image_format == image_format
    assert np.abs(preview.pixels.astype(int) - pixels).mean() < 5


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_every_format_carries_the_recipe(pixels: np.ndarray, image_format: ImageFormat) -> None:
    picture = decode(encode(pixels, image_format=image_format, recipe=RECIPE))

    assert picture.recipe == RECIPE
    assert picture.image_format == image_format
    assert picture.pixels.shape == pixels.shape


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_other_programs_read_what_made_it_in_iptcs_words(pixels: np.ndarray, image_format: ImageFormat) -> None:
    image = Image.open(io.BytesIO(encode(pixels, image_format=image_format, recipe=RECIPE)))

    said = properties_of(image)
    assert said["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert said["CreatorTool"] == "safelight 0.1.0"
    assert (said["AISystemUsed"], said["AISystemVersionUsed"]) == ("fake", RECIPE.revision)
    assert said["AIPromptInformation"] == "ein Fuchs & <ein> Auto, 狐\nnegative prompt: grass"


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_exif_has_the_recipe_where_its_readers_look(pixels: np.ndarray, image_format: ImageFormat) -> None:
    exif = Image.open(io.BytesIO(encode(pixels, image_format=image_format, recipe=RECIPE))).getexif()

    comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert exif[ExifTags.Base.Software] == "safelight 0.1.0"
    assert comment.startswith(b"ASCII\0\0\0")
    assert json.loads(comment[8:])["prompt"] == RECIPE.prompt


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_a_user_comment_is_of_the_type_that_exif_wants(pixels: np.ndarray, image_format: ImageFormat) -> None:
    content = encode(pixels, image_format=image_format, recipe=RECIPE)

    user_comment, undefined = 0x9286, 7
    assert any(struct.pack(f"{order}HH", user_comment, undefined) in content for order in "<>")


def test_an_edit_says_that_it_is_one(pixels: np.ndarray) -> None:
    edit = replace(RECIPE, source="a" * 64, strength=0.5)

    image = Image.open(io.BytesIO(encode(pixels, image_format="jpeg", recipe=edit)))

    assert properties_of(image)["DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_what_is_withheld_is_nowhere_in_the_file(pixels: np.ndarray, image_format: ImageFormat) -> None:
    recipe = replace(RECIPE, prompt="a secret fox", negative_prompt="a secret car").without_prompts()

    content = encode(pixels, image_format=image_format, recipe=recipe)

    assert b"secret" not in content
    carried = decode(content).recipe
    assert carried is not None
    assert (carried.prompt, carried.negative_prompt, carried.withheld) == (None, None, ("prompt", "negative_prompt"))
    assert carried.seed == 7


def test_an_empty_negative_prompt_is_no_secret() -> None:
    assert replace(RECIPE, negative_prompt="").without_prompts().negative_prompt == ""


@pytest.mark.parametrize(("character", "kept"), [("fox ", True), ("狐", False), ("&", False)])
def test_a_jpeg_without_room_for_a_prompt_withholds_it(pixels: np.ndarray, character: str, kept: bool) -> None:
    prompt = (character * 32_000)[:32_000]

    recipe = decode(encode(pixels, image_format="jpeg", recipe=replace(RECIPE, prompt=prompt))).recipe

    assert recipe is not None
    assert (recipe.prompt, recipe.withheld) == ((prompt, ()) if kept else (None, ("prompt", "negative_prompt")))


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_prompt_of_odd_characters_breaks_no_picture(pixels: np.ndarray, image_format: ImageFormat) -> None:
    content = encode(pixels, image_format=image_format, recipe=replace(RECIPE, prompt="\0 \x1b ]]> \ufffe \U0001f98a"))

    picture = decode(content)
    assert picture.recipe is not None
    assert picture.recipe.prompt == "\0 \x1b ]]> \ufffe \U0001f98a"
    assert properties_of(Image.open(io.BytesIO(content)))["AIPromptInformation"].startswith("? ? ]]> ? \U0001f98a")


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_picture_of_another_program_has_no_recipe(pixels: np.ndarray, image_format: ImageFormat) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b'ASCII\0\0\0{"steps": 4}'
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format.upper(), exif=exif)

    assert decode(buffer.getvalue()).recipe is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no PNG, JPEG or WebP file"),
        (b"once upon a time", "is no PNG, JPEG or WebP file"),
        (b"GIF89a" + bytes(100), "is no PNG, JPEG or WebP file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is (no|broken)"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        decode(content)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_a_picture_that_is_cut_short_is_refused(pixels: np.ndarray, image_format: ImageFormat) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(noise, image_format=image_format, recipe=RECIPE)

    with pytest.raises(InvalidRequest, match="is broken"):
        decode(content[: len(content) // 2])


def test_a_recipe_that_makes_no_sense_is_named(pixels: np.ndarray) -> None:
    chunks = PngInfo()
    chunks.add_text("safelight", '{"safelight": "9.9", "width": "wide"}')
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=chunks)

    with pytest.raises(InvalidRequest, match=r"carries a recipe by Safelight 9\.9"):
        decode(buffer.getvalue())


@pytest.mark.parametrize("text", ['{"safelight": "1", "prompt": "\\ud800"}', '{"safelight":' + "[" * 100_000])
def test_text_that_nobody_can_read_is_no_recipe(pixels: np.ndarray, text: str) -> None:
    chunks = PngInfo()
    chunks.add_text("safelight", text)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=chunks)

    assert decode(buffer.getvalue()).recipe is None


def test_broken_exif_is_no_recipe_and_warns_of_nothing(pixels: np.ndarray) -> None:
    content = encode(pixels, image_format="jpeg", recipe=RECIPE)
    user_comment = content.index(b"\x92\x86") if b"\x92\x86" in content else content.index(b"\x86\x92")

    broken = content[: user_comment + 4] + b"\x7f" * 4 + content[user_comment + 8 :]  # its length

    assert decode(broken).recipe is None


def properties_of(image: Image.Image) -> dict[str, str]:
    """The XMP properties of an image, without their namespaces."""
    packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    text = packet.decode("utf-8") if isinstance(packet, bytes) else packet
    root = ElementTree.fromstring(text.rstrip("\0"))
    return {each.tag.partition("}")[2]: each.text or "" for each in root.iter() if each.text}
