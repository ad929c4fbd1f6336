"""Same seed, same picture: alone, among others, joined in mid-flight, first or last of n."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from safelight.engine.batch_invariance import make_batch_invariant
from safelight.engine.engine import Engine, load_engine
from safelight.engine.pixels.autoencoder import Pixels
from safelight.settings import EngineOptions
from tests.unit.engine.drive import denoise, finish, make_generation, paint, start

MANY_ROWS = 12
GUIDED = {"negative_prompt": "a blue dog", "true_cfg_scale": 3.0}


@pytest.fixture(params=["float32", "bfloat16"])
def any_engine(request: pytest.FixtureRequest, engine: Engine, bf16_engine: Engine) -> Engine:
    return engine if request.param == "float32" else bf16_engine


def test_a_generation_among_others_of_other_step_counts_is_the_one_alone(any_engine: Engine) -> None:
    alone = paint(any_engine, num_inference_steps=5)

    generation = start(any_engine, num_inference_steps=5)
    others = [start(any_engine, prompt=f"other {i}", seed=i, num_inference_steps=i + 1) for i in range(MANY_ROWS)]
    denoise(any_engine, generation, *others)

    _assert_same_picture(any_engine.decode(generation), alone)


def test_a_picture_decoded_again_and_again_beside_others_is_the_one_alone(any_engine: Engine) -> None:
    alone = paint(any_engine)
    generation, other = start(any_engine), start(any_engine, seed=8)
    denoise(any_engine, generation)

    for _ in range(3):  # the first of a size is made with all threads and with half of them
        _assert_same_picture(any_engine.decode(generation), alone)
    any_engine.release(generation)
    any_engine.release(other)


def test_a_generation_that_joins_in_mid_flight_is_the_one_alone(any_engine: Engine) -> None:
    alone = paint(any_engine, num_inference_steps=5)

    running = start(any_engine, prompt="a green tree", seed=1, num_inference_steps=9)
    for _ in range(3):
        any_engine.step([running])
    joined = start(any_engine, num_inference_steps=5)
    denoise(any_engine, running, joined)

    _assert_same_picture(any_engine.decode(joined), alone)


def test_a_generation_whose_companions_come_and_go_is_the_one_alone(any_engine: Engine) -> None:
    alone = paint(any_engine, num_inference_steps=4)

    generation = start(any_engine, num_inference_steps=4)
    for step in range(4):
        companions = [start(any_engine, seed=seed, num_inference_steps=4) for seed in range(step * 2)]
        any_engine.step([*companions, generation])

    _assert_same_picture(any_engine.decode(generation), alone)


@pytest.mark.parametrize("scheduler", ["euler", "heun", "lcm", "unipc", "dpmpp"])
def test_a_generation_among_other_schedulers_and_guidance_is_the_one_alone(engine: Engine, scheduler: str) -> None:
    alone = paint(engine, scheduler=scheduler, num_inference_steps=4)

    generation = start(engine, scheduler=scheduler, num_inference_steps=4)
    others = [start(engine, scheduler=name, seed=3, **GUIDED) for name in ("euler", "heun", "lcm", "unipc", "dpmpp")]
    denoise(engine, *others, generation)

    _assert_same_picture(engine.decode(generation), alone)


def test_generations_of_different_embedded_guidance_share_steps(dev_engine: Engine) -> None:
    scales = [1.0, 3.5, 9.0]
    alone = [paint(dev_engine, guidance_scale=scale, num_inference_steps=3) for scale in scales]

    batch = [start(dev_engine, guidance_scale=scale, num_inference_steps=3) for scale in scales]
    denoise(dev_engine, *batch)

    for generation, expected in zip(batch, alone, strict=True):
        _assert_same_picture(dev_engine.decode(generation), expected)


def test_a_guided_generation_in_a_batch_is_the_one_alone(any_engine: Engine) -> None:
    alone = paint(any_engine, **GUIDED)

    generation = start(any_engine, **GUIDED)
    others = [start(any_engine, seed=1), start(any_engine, seed=2, **GUIDED)]
    denoise(any_engine, others[0], generation, others[1])

    _assert_same_picture(any_engine.decode(generation), alone)


@pytest.mark.parametrize("index", [0, 1, 3])
def test_image_i_of_n_is_the_single_image_of_seed_plus_i(any_engine: Engine, index: int) -> None:
    single = paint(any_engine, seed=7 + index)

    images = [make_generation(any_engine, seed=7, image_index=i, num_images_per_prompt=4) for i in range(4)]
    for image in images:
        any_engine.start(image)
    denoise(any_engine, *images)

    assert images[index].seed == 7 + index
    _assert_same_picture(any_engine.decode(images[index]), single)


@pytest.mark.parametrize("size", [(64, 64), (48, 32)], ids=["many tokens", "six tokens"])
def test_latents_are_equal_bit_for_bit_whatever_the_batch(any_engine: Engine, size: tuple[int, int]) -> None:
    if not _has_stable_products():
        pytest.skip("this machine's matrix product rounds a row differently with the number of rows")
    parameters = {"width": size[0], "height": size[1], "num_inference_steps": 3}
    alone = start(any_engine, **parameters)
    denoise(any_engine, alone)

    for num_others in (1, 2, 3, 6, 11, 16):
        generation = start(any_engine, **parameters)
        others = [start(any_engine, seed=seed, **parameters) for seed in range(num_others)]
        denoise(any_engine, *others, generation)

        latents = any_engine._denoising[generation].latents
        assert torch.equal(latents, any_engine._denoising[alone].latents)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [12, 64])
@torch.no_grad()
def test_a_long_sum_is_the_same_for_an_image_alone(dtype: torch.dtype, tokens: int) -> None:
    """The tests' tiny FLUX has none; on CPUs with AMX they differ where nothing is done about it."""
    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(1280, 256)).to(dtype)
    layers[0].weight.copy_(torch.randn(256, 1280, generator=generator))
    make_batch_invariant(layers)
    images = torch.randn(4, tokens, 1280, generator=generator).to(dtype)

    together = layers(images)

    assert all(torch.equal(together[i : i + 1], layers(images[i : i + 1])) for i in range(4))


def test_a_seed_means_the_same_noise_in_every_dtype(engine: Engine, bf16_engine: Engine) -> None:
    in_fp32, in_bf16 = start(engine), start(bf16_engine)

    noise = engine._denoising[in_fp32].latents

    assert torch.equal(bf16_engine._denoising[in_bf16].latents, noise.bfloat16())


def test_a_restarted_engine_paints_the_same_picture(engine: Engine, tiny_flux_folder: Path) -> None:
    restarted = load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float32"))

    _assert_same_picture(paint(restarted), paint(engine))


def test_a_seed_beyond_32_bits_says_which_seed_it_repeats(engine: Engine) -> None:
    generation = start(engine, seed=2**32 + 7)

    assert generation.warnings == ["seed 4294967303 paints the same image as seed 7"]
    _assert_same_picture(finish(engine, generation), paint(engine, seed=7))


def test_another_seed_paints_another_picture(engine: Engine) -> None:
    assert not np.array_equal(paint(engine, seed=7), finish(engine, start(engine, seed=8)))


def _assert_same_picture(pixels: Pixels, expected: Pixels) -> None:
    """Equal where the machine's matrix product allows it, and within one part in 255 anywhere."""
    tolerance = 0 if _has_stable_products() else 1
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= tolerance


@functools.cache
def _has_stable_products() -> bool:
    """Whether a row of a large matrix product is the same whatever the number of rows; x86 with MKL: yes."""
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(512, 32, generator=generator), torch.randn(96, 32, generator=generator)
    whole = torch.nn.functional.linear(rows, weight)
    return all(
        torch.equal(torch.nn.functional.linear(rows[:count], weight), whole[:count]) for count in range(16, 512, 16)
    )
