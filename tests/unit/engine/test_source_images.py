"""A picture made from another is the one of diffusers.FluxImg2ImgPipeline and FluxInpaintPipeline, to 1/255.

What a mask keeps is another matter: there the picture is the upload itself.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxInpaintPipeline
from PIL import Image

from safelight.engine.engine import Engine, load_engine
from safelight.engine.pixels.kept_pixels import put_back
from safelight.errors import InvalidRequest
from safelight.picture.generation import SourceImage
from safelight.settings import EngineOptions
from tests.unit.engine.drive import denoise, finish, paint, start

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WIDTH, HEIGHT = 96, 64
SIZE = {"width": WIDTH, "height": HEIGHT}
GUIDED = {"negative_prompt": "a blue dog", "true_cfg_scale": 4.0}


def drawing() -> np.ndarray:
    """A gradient with a square on it."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, WIDTH, dtype=np.uint8)
    pixels[..., 1] = np.linspace(255, 0, HEIGHT, dtype=np.uint8)[:, None]
    pixels[10:40, 20:50] = (240, 30, 200)
    return pixels


def mask() -> np.ndarray:
    """Paint the right half anew, with an edge between two pixels of the latents."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[5:, 44:] = 255
    return pixels


def source(strength: float, *, has_mask: bool = False) -> SourceImage:
    return SourceImage(pixels=drawing().tobytes(), strength=strength, mask=mask().tobytes() if has_mask else None)


def pipeline_picture(
    pipeline_class: Any, folder: Any, engine: Engine, strength: float, steps: int, **options: Any
) -> np.ndarray:
    pipeline = pipeline_class.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(
        "a red cat",
        image=Image.fromarray(drawing()),
        strength=strength,
        num_inference_steps=steps,
        max_sequence_length=engine.spec.max_sequence_length,
        generator=torch.Generator().manual_seed(7),
        **SIZE | {"guidance_scale": engine.spec.default_guidance_scale} | options,
    ).images[0]
    return np.array(picture)


def assert_close(pixels: np.ndarray, expected: np.ndarray) -> None:
    assert expected.std() > 10
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize(("strength", "steps"), [(0.3, 4), (0.6, 4), (0.95, 9), (1.0, 4), (0.6, 1)])
def test_image_to_image_gives_the_pipelines_picture(
    engine: Engine, tiny_flux_folder: Any, strength: float, steps: int, guidance: dict[str, Any]
) -> None:
    expected = pipeline_picture(FluxImg2ImgPipeline, tiny_flux_folder, engine, strength, steps, **guidance)

    pixels = paint(engine, source=source(strength), num_inference_steps=steps, **SIZE, **guidance)

    assert_close(pixels, expected)


@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize(("strength", "steps"), [(0.6, 4), (0.85, 9), (1.0, 4)])
def test_inpainting_gives_the_pipelines_picture(
    engine: Engine, tiny_flux_folder: Any, strength: float, steps: int, guidance: dict[str, Any]
) -> None:
    options = {"mask_image": Image.fromarray(mask())} | guidance
    expected = pipeline_picture(FluxInpaintPipeline, tiny_flux_folder, engine, strength, steps, **options)

    pixels = paint(engine, source=source(strength, has_mask=True), num_inference_steps=steps, **SIZE, **guidance)

    is_new = mask() >= 128
    assert_close(pixels[is_new], expected[is_new])
    assert not np.array_equal(expected[~is_new], drawing()[~is_new])
    assert np.array_equal(pixels[is_kept_whole(mask(), engine)], drawing()[is_kept_whole(mask(), engine)])


def is_kept_whole(mask: np.ndarray, engine: Engine) -> np.ndarray:
    """Where nothing is painted anew nearer than a pixel of the latents is wide."""
    seam = engine.spec.size_multiple // 2
    rows, columns = np.nonzero(mask >= 128)
    kept = np.ones(mask.shape, bool)
    for row, column in zip(rows, columns, strict=True):
        kept[max(0, row - seam) : row + seam + 1, max(0, column - seam) : column + seam + 1] = False
    return kept


SHAPES = {
    "a half": (slice(None), slice(48, None)),
    "a hole": (slice(20, 40), slice(30, 60)),
    "a corner": (slice(0, 5), slice(0, 5)),
    "a single pixel": (slice(30, 31), slice(50, 51)),
    "all but a frame": (slice(8, -8), slice(8, -8)),
    "everything": (slice(None), slice(None)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("checkpoint", ["engine", "taef_engine"])
def test_what_the_mask_keeps_comes_back_as_it_was_but_for_a_seam(
    checkpoint: str, shape: tuple[slice, slice], request: pytest.FixtureRequest
) -> None:
    engine = request.getfixturevalue(checkpoint)
    new = np.zeros((HEIGHT, WIDTH), np.uint8)
    new[shape] = 255
    edit = SourceImage(pixels=drawing().tobytes(), strength=1.0, mask=new.tobytes())

    pixels = paint(engine, source=edit, **SIZE)

    kept = is_kept_whole(new, engine)
    assert np.array_equal(pixels[kept], drawing()[kept])
    assert np.abs(pixels[new == 255].astype(int) - drawing()[new == 255]).mean() > 10


def test_in_the_seam_the_upload_passes_into_the_new_picture_step_by_step() -> None:
    new = np.zeros((8, 64), np.uint8)
    new[:, 40:] = 255
    upload = SourceImage(pixels=np.zeros((8, 64, 3), np.uint8).tobytes(), strength=1.0, mask=new.tobytes())

    row = put_back(np.full((8, 64, 3), 255, np.uint8), upload, width=64, seam=8)[4, :, 0].astype(int)

    assert (set(row[:32]), set(row[40:])) == ({0}, {255})
    assert row[32:40].tolist() == sorted(row[32:40])
    assert np.diff(row[31:41]).max() <= 32


def test_a_seam_reaches_as_far_over_a_corner_and_at_the_border_of_the_picture() -> None:
    new = np.zeros((32, 32), np.uint8)
    new[:4, :4] = 255
    upload = SourceImage(pixels=np.zeros((32, 32, 3), np.uint8).tobytes(), strength=1.0, mask=new.tobytes())

    pixels = put_back(np.full((32, 32, 3), 255, np.uint8), upload, width=32, seam=8)[..., 0]

    assert (pixels[:4, :4] == 255).all()
    assert (pixels[12:] == 0).all()
    assert (pixels[:, 12:] == 0).all()
    assert (pixels[:4, 4:12] > 0).any(axis=0).sum() >= 7


@pytest.mark.parametrize("decoder", ["projection", "autoencoder"])
def test_previews_show_what_the_mask_keeps_too(engine: Engine, decoder: Literal["projection", "autoencoder"]) -> None:
    edit = source(1.0, has_mask=True)
    generation = start(engine, source=edit, num_previews=1, preview_decoder=decoder, num_inference_steps=2, **SIZE)

    engine.step([generation])
    preview = engine.preview(generation)

    shrinkage = WIDTH // preview.shape[1]
    shown = np.asarray(Image.fromarray(drawing()).reduce(shrinkage))
    kept = np.asarray(Image.fromarray(is_kept_whole(mask(), engine)).convert("L").reduce(shrinkage)) == 255
    assert kept.any()
    assert np.array_equal(preview[kept], shown[kept])
    engine.release(generation)


def test_the_pictures_of_a_masked_edit_are_the_same_together_and_alone(engine: Engine) -> None:
    edits = [start(engine, image_index=index, source=source(0.8, has_mask=True), **SIZE) for index in range(2)]
    denoise(engine, *edits)

    together = [finish(engine, edit) for edit in edits]

    alone = [paint(engine, image_index=index, source=source(0.8, has_mask=True), **SIZE) for index in range(2)]
    assert all(np.array_equal(one, other) for one, other in zip(together, alone, strict=True))
    assert not np.array_equal(*together)


def test_image_to_image_with_embedded_guidance_and_a_dynamic_shift_gives_the_pipelines_picture(
    dev_engine: Engine, tiny_flux_dev_folder: Any
) -> None:
    expected = pipeline_picture(FluxImg2ImgPipeline, tiny_flux_dev_folder, dev_engine, 0.6, 5)

    pixels = paint(dev_engine, source=source(0.6), num_inference_steps=5, **SIZE)

    assert_close(pixels, expected)


def test_image_to_image_with_the_tiny_autoencoder_gives_the_pipelines_picture(
    taef_engine: Engine, tiny_flux_taef_folder: Any
) -> None:
    expected = pipeline_picture(FluxImg2ImgPipeline, tiny_flux_taef_folder, taef_engine, 0.6, 4)

    assert_close(paint(taef_engine, source=source(0.6), **SIZE), expected)


@pytest.mark.parametrize("scheduler", ["euler", "heun", "lcm", "unipc", "dpmpp"])
def test_every_scheduler_starts_in_the_middle_and_ends_with_no_noise(engine: Engine, scheduler: str) -> None:
    generation = start(engine, source=source(0.5), scheduler=scheduler, num_inference_steps=6, **SIZE)
    sigmas = engine._denoising[generation].noise_scheduler.sigmas

    assert float(sigmas[0]) == pytest.approx(0.5, abs=0.1)
    assert float(sigmas[-1]) == 0
    assert len(sigmas) == generation.num_steps + 1
    assert finish(engine, generation).std() > 0


def test_what_the_mask_keeps_does_not_depend_on_the_prompt(engine: Engine) -> None:
    one, other = (
        start(engine, prompt=prompt, source=source(1.0, has_mask=True), **SIZE) for prompt in ("a cat", "a red dog")
    )
    denoise(engine, one, other)
    first, second = (engine._denoising[each].latents.view(4, 6, -1) for each in (one, other))

    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.equal(first[:, 3:], second[:, 3:])
    for each in (one, other):
        engine.release(each)


@pytest.mark.parametrize("checkpoint", ["tiny_flux_folder", "tiny_flux_taef_folder"])
def test_the_images_of_a_request_encode_their_picture_once_and_stay_as_they_are(
    checkpoint: str, request: pytest.FixtureRequest
) -> None:
    engine, other = (
        load_engine(request.getfixturevalue(checkpoint), EngineOptions(device="cpu", dtype="float32")) for _ in range(2)
    )
    encoded = []
    engine._components.autoencoder.encoder.register_forward_hook(lambda *_: encoded.append(1))

    images = [start(engine, image_index=index, source=source(0.6), **SIZE) for index in range(3)]

    assert len(encoded) == 1
    denoise(engine, *images)
    last_alone = paint(other, image_index=2, source=source(0.6), **SIZE)
    assert np.array_equal(finish(engine, images[2]), last_alone)
    assert not np.array_equal(finish(engine, images[0]), last_alone)


def test_an_edit_shares_steps_with_a_generation_and_both_stay_as_they_are(engine: Engine) -> None:
    edit_alone = paint(engine, source=source(0.6), num_inference_steps=8, **SIZE)
    alone = paint(engine, **SIZE)
    edit = start(engine, source=source(0.6), num_inference_steps=8, **SIZE)
    plain = start(engine, **SIZE)
    calls = engine.counters().transformer_calls

    denoise(engine, edit, plain)

    assert edit.num_steps == 5
    assert engine.counters().transformer_calls - calls == 5
    assert np.array_equal(finish(engine, edit), edit_alone)
    assert np.array_equal(finish(engine, plain), alone)


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.1, float("nan")])
def test_a_strength_that_is_none_is_refused(engine: Engine, strength: float) -> None:
    with pytest.raises(InvalidRequest, match="strength must be above 0") as caught:
        start(engine, source=source(strength), **SIZE)

    assert caught.value.field == "strength"
