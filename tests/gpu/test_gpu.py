"""What can be seen on a GPU only. `tests/gpu/run` runs it, and then measures; without a GPU it is left out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from safelight.engine.engine import Engine, load_engine, prepare_engine
from safelight.engine.pixels.autoencoder import Pixels
from safelight.model.checkpoint import read_model_spec
from safelight.model.spec import LoraFile
from safelight.settings import EngineOptions
from tests.tiny_flux import save_tiny_flux
from tests.tiny_loras import save_lora
from tests.unit.engine.drive import denoise, paint, start

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")

PRECISIONS = ("none", "int8", "fp8", "nf4")
OFFLOADS = ("none", "encoders", "model", "layers")
LORA = {"loras": (("film", 1.0),)}
Load = Callable[..., Engine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_flux(tmp_path_factory.mktemp("flux") / "tiny")


@pytest.fixture(scope="module")
def load(folder: Path) -> Load:
    lora = LoraFile(name="film", file=str(save_lora(folder.parent / "film", base=folder, seed=1)))
    spec = replace(read_model_spec(folder), loras=(lora,))

    def load(**options: str) -> Engine:
        return load_engine(folder, EngineOptions.model_validate({"device": "cuda"} | options), spec=spec)

    return load


def _assert_close(picture: Pixels, expected: Pixels, far: int = 2) -> None:
    assert np.abs(picture.astype(int) - expected.astype(int)).max() <= far


@pytest.mark.parametrize("quantization", PRECISIONS)
def test_a_generation_among_others_is_the_one_alone_within_two_parts_in_255(load: Load, quantization: str) -> None:
    engine = load(quantization=quantization, text_encoder_2_quantization="int8")
    alone, adapted = paint(engine, num_inference_steps=4), paint(engine, num_inference_steps=4, **LORA)

    own, with_lora = start(engine, num_inference_steps=4), start(engine, num_inference_steps=4, **LORA)
    others = [start(engine, prompt=f"other {seed}", seed=seed, num_inference_steps=3 + seed) for seed in range(4)]
    denoise(engine, *others, own, with_lora)

    _assert_close(engine.decode(own), alone)
    _assert_close(engine.decode(with_lora), adapted)
    assert not np.array_equal(alone, adapted)


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("quantization", PRECISIONS)
def test_what_waits_in_memory_makes_the_same_picture_twice(load: Load, quantization: str, offload: str) -> None:
    expected = paint(load(quantization=quantization, offload="none"))

    engine = load(quantization=quantization, offload=offload)

    _assert_close(paint(engine), expected)
    _assert_close(paint(engine), expected)


def test_a_picture_of_float32_is_close_to_the_cpus(load: Load) -> None:
    _assert_close(paint(load(dtype="float32")), paint(load(dtype="float32", device="cpu")), far=3)


def test_a_generation_that_is_released_takes_its_memory_along(load: Load) -> None:
    engine = load()
    paint(engine)
    before = torch.cuda.memory_allocated()

    for seed in range(20):
        generation = start(engine, seed=seed)
        engine.step([generation])
        engine.release(generation)

    assert torch.cuda.memory_allocated() <= before + 2**20


@pytest.mark.parametrize("tiling", ["off", "on"])
def test_a_picture_that_is_decoded_beside_the_steps_of_others_is_the_one_that_is_not(
    folder: Path, tiling: Literal["on", "off"]
) -> None:
    beside = prepare_engine(folder, EngineOptions(device="cuda", vae_tiling=tiling))
    alone = replace(
        beside, precision=replace(beside.precision, choice=replace(beside.precision.choice, decodes_beside=False))
    )
    size = {"width": 256, "height": 256}
    expected = [paint(alone.load(), seed=seed, **size) for seed in range(8)]
    engine = beside.load()
    other = start(engine, seed=99, num_inference_steps=100, **size)

    with ThreadPoolExecutor(1) as decoder:
        decoding = []
        for seed in range(8):
            own = start(engine, seed=seed, **size)
            denoise(engine, own)
            decoding.append(decoder.submit(engine.decode, own))
            for _ in range(8):
                engine.step([other])
        pictures = [each.result() for each in decoding]

    assert engine.decodes_beside_steps
    assert not alone.load().decodes_beside_steps
    for picture, wanted in zip(pictures, expected, strict=True):
        _assert_close(picture, wanted)


def test_a_step_does_not_wait_for_a_picture_that_is_decoded_beside_it(folder: Path) -> None:
    engine = prepare_engine(folder, EngineOptions(device="cuda")).load()
    own, other = start(engine), start(engine, seed=8)
    denoise(engine, own)
    engine.step([other])
    torch.cuda.synchronize()

    with engine._beside(engine._denoising[own].latents):
        torch.cuda._sleep(2**32)  # cycles: seconds, in which nothing else is done on its stream
        done = torch.cuda.Event()
        done.record()
    engine.step([other])
    torch.cuda.default_stream().synchronize()

    assert not done.query()
    torch.cuda.synchronize()


@pytest.mark.parametrize("with_what", [{}, {"negative_prompt": "a dog"}, {"num_previews": 2}, LORA])
def test_no_step_waits_for_the_gpu(load: Load, with_what: dict[str, object]) -> None:
    engine = load(dtype="bfloat16")
    batch = [start(engine, seed=seed, num_inference_steps=6, **with_what) for seed in range(3)]
    for _ in range(2):
        engine.step(batch)

    torch.cuda.set_sync_debug_mode("error")
    try:
        engine.step(batch)
        sent = engine._denoising[batch[0]].check
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert sent is not None
    assert sent.is_finite()


def test_what_is_not_finite_is_an_error_that_names_its_step(load: Load) -> None:
    engine = load(dtype="bfloat16")
    healthy, sick = start(engine, seed=1), start(engine, seed=2)
    engine._denoising[sick].latents[0, 0, 0] = torch.nan

    engine.step([healthy, sick])
    engine.step([healthy, sick])

    assert sick.error is not None
    assert "step 1 of 4" in sick.error.message
    assert healthy.error is None


@pytest.mark.parametrize("quantization", PRECISIONS)
def test_compiled_blocks_make_the_picture_of_eager_ones(load: Load, quantization: str) -> None:
    expected, with_lora = paint(load(quantization=quantization)), paint(load(quantization=quantization), **LORA)
    engine = load(quantization=quantization, compile="on")
    _assert_close(paint(engine), expected)
    assert engine._blocks is not None
    assert engine._blocks.thread is not None
    engine._blocks.thread.join(timeout=120)

    own = start(engine)
    denoise(engine, own, *(start(engine, seed=seed) for seed in range(3)))

    assert engine._blocks.is_ready
    _assert_close(paint(engine), expected)
    _assert_close(engine.decode(own), expected)
    _assert_close(paint(engine, **LORA), with_lora)
