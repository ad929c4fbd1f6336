"""What an engine promises to the loop that drives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from safelight.engine.denoising.finite_checks import FiniteCheck
from safelight.engine.engine import Engine, load_engine, prepare_engine
from safelight.errors import NonFiniteValues
from safelight.picture.generation import Generation
from safelight.settings import EngineOptions
from tests.unit.engine.drive import denoise, paint, start

GUIDED = {"negative_prompt": "a blue dog", "true_cfg_scale": 3.0}


@pytest.fixture
def fresh_engine(tiny_flux_folder: Path) -> Engine:
    """One that a test may break."""
    return load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float32"))


def test_a_picture_is_decoded_on_its_stream_once_its_last_step_is_known_to_be_done(fresh_engine: Engine) -> None:
    expected = paint(fresh_engine)
    generation, done = start(fresh_engine), list[str]()
    denoise(fresh_engine, generation)
    denoising = fresh_engine._denoising[generation]

    class Check(FiniteCheck):
        def is_finite(self) -> bool:
            done.append("waited")
            return True

    @contextmanager
    def stream(latents: torch.Tensor) -> Iterator[None]:
        done.append("entered" if latents is denoising.latents else "of other latents")
        yield
        done.append("left")

    def decoded(latents: torch.Tensor, *, is_alone: bool) -> torch.Tensor:
        done.append("decoded")
        return decoder(latents, is_alone=is_alone)

    decoder, fresh_engine._decoder = fresh_engine._decoder, decoded  # type: ignore[assignment]
    denoising.check = Check(3, np.array([True]), 0, None)
    fresh_engine._beside = stream

    pixels = fresh_engine.decode(generation)

    assert done == ["waited", "entered", "decoded", "left"]
    np.testing.assert_array_equal(pixels, expected)


def test_a_picture_has_the_size_that_was_asked_for(engine: Engine) -> None:
    pixels = paint(engine, width=96, height=48)

    assert pixels.shape == (48, 96, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("scheduler", ["euler", "heun"])
def test_a_generation_knows_how_many_calls_it_needs(engine: Engine, scheduler: str) -> None:
    generation = start(engine, scheduler=scheduler, num_inference_steps=3)

    denoise(engine, generation)

    assert generation.step_index == generation.num_steps == {"euler": 3, "heun": 5}[scheduler]


def test_generations_of_equal_size_have_equal_batch_keys(engine: Engine) -> None:
    square, same, wide = start(engine), start(engine, prompt="other", num_inference_steps=9), start(engine, width=96)

    assert square.batch_key == same.batch_key
    assert square.batch_key != wide.batch_key
    assert start(engine, width=64, height=96).batch_key != wide.batch_key


def test_a_batch_takes_one_transformer_call_a_step(engine: Engine) -> None:
    batch = [start(engine), start(engine, **GUIDED), start(engine, scheduler="heun")]
    calls_before = engine.counters().transformer_calls

    engine.step(batch)

    assert engine.counters().transformer_calls == calls_before + 1
    assert [generation.step_index for generation in batch] == [1, 1, 1]


def test_a_guided_generation_takes_two_rows_of_the_call(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_seen = []
    forward = engine._components.transformer.forward
    monkeypatch.setattr(
        engine._components.transformer,
        "forward",
        lambda **inputs: rows_seen.append(len(inputs["hidden_states"])) or forward(**inputs),
    )

    engine.step([start(engine), start(engine, **GUIDED)])

    assert set(rows_seen) == {3}  # the first call of a shape is made with all threads and with half of them


def test_a_negative_prompt_changes_the_picture(engine: Engine) -> None:
    plain, guided = paint(engine), paint(engine, **GUIDED)

    assert not np.array_equal(plain, guided)
    assert not np.array_equal(guided, paint(engine, **GUIDED | {"negative_prompt": "a green tree"}))


def test_embedded_guidance_changes_the_picture(dev_engine: Engine) -> None:
    assert not np.array_equal(paint(dev_engine, guidance_scale=1.0), paint(dev_engine, guidance_scale=8.0))


def test_guidance_on_a_model_without_it_changes_nothing(engine: Engine) -> None:
    assert np.array_equal(paint(engine, guidance_scale=0.0), paint(engine, guidance_scale=8.0))


def test_the_time_that_encoding_took_is_told(engine: Engine) -> None:
    assert start(engine, prompt="never seen before").encode_s > 0


def test_a_released_generation_leaves_no_tensors(engine: Engine) -> None:
    generation = start(engine)

    engine.release(generation)
    engine.release(generation)

    assert generation not in engine._denoising


def test_latents_that_turn_non_finite_fail_that_row_alone(engine: Engine) -> None:
    healthy, sick = start(engine), start(engine, seed=8)
    engine.step([healthy, sick])
    _poison(engine, sick, torch.inf)

    engine.step([healthy, sick])
    engine.step([healthy, sick])  # what a step made is read in the next: nobody waits for a GPU in between

    assert healthy.error is None
    assert isinstance(sick.error, NonFiniteValues)
    assert "step 2 of 4" in sick.error.message


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_never_a_picture_whichever_step_made_it(engine: Engine, value: float, steps: int) -> None:
    sick = start(engine, num_inference_steps=4, num_previews=3)
    for _ in range(steps - 1):
        engine.step([sick])
    _poison(engine, sick, value)
    engine.step([sick])

    for show in (engine.preview, engine.decode):
        with pytest.raises(NonFiniteValues, match=f"step {steps} of 4 made NaN"):
            show(sick)


@pytest.mark.parametrize("with_what", [{}, {"negative_prompt": "a dog"}, {"num_previews": 2}])
def test_a_step_asks_the_device_for_no_number_and_sends_it_none(engine: Engine, with_what: dict[str, object]) -> None:
    """On a GPU each such question would wait until the step is done, and the next could only begin then."""
    parameters: dict[str, object] = {"num_inference_steps": 6, **with_what}
    batch = [start(engine, seed=seed, **parameters) for seed in range(3)]
    for _ in range(2):  # of a new shape it is tried whether products are stable by row
        engine.step(batch)

    with Questions() as questions:
        for _ in range(3):
            engine.step(batch)

    assert questions.asked == []


def test_the_rows_beside_a_non_finite_one_are_not_touched(engine: Engine) -> None:
    alone = paint(engine)

    healthy, sick = start(engine), start(engine, seed=8)
    _poison(engine, sick, torch.nan)
    engine.step([sick, healthy])
    denoise(engine, healthy)

    assert np.array_equal(engine.decode(healthy), alone)


def test_pixels_that_are_non_finite_are_an_error_that_names_the_step(fresh_engine: Engine) -> None:
    generation = _denoised(fresh_engine)
    fresh_engine._components.autoencoder.decoder.conv_out.bias.data[:] = torch.nan

    with pytest.raises(NonFiniteValues, match="after step 4 of 4"):
        fresh_engine.decode(generation)


def test_a_decoder_that_overflows_in_16_bits_is_run_again_in_fp32(tiny_flux_folder: Path) -> None:
    engine = load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float16"))
    generation = _denoised(engine)
    engine._components.autoencoder.decoder.conv_in.weight.data *= 1e4  # beyond what fp16 holds

    pixels = engine.decode(generation)

    assert pixels.std() > 0
    assert engine._components.autoencoder.dtype is torch.float16


def test_a_picture_that_overflows_changes_no_picture_after_it(tiny_flux_folder: Path) -> None:
    """fp32 is a retry of that picture: whoever comes next gets what they would have got before it."""
    engine = load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float16"))
    before, decoder = paint(engine), engine._components.autoencoder.decoder
    overflowing = _denoised(engine)
    decoder.conv_in.weight.data *= 2**14
    assert engine.decode(overflowing).std() > 0
    decoder.conv_in.weight.data /= 2**14

    after = paint(engine)

    assert np.array_equal(before, after)


def test_force_upcast_in_a_config_makes_no_rule_of_fp32(tiny_flux_folder: Path) -> None:
    """FLUX.1's own autoencoder has it; diffusers' Flux pipelines do not read it either."""
    engine = load_engine(tiny_flux_folder, EngineOptions(device="cpu", dtype="float16"))
    plain = paint(engine)
    engine._components.autoencoder.register_to_config(force_upcast=True)
    seen = set()
    engine._components.autoencoder.decoder.register_forward_hook(lambda _, __, image: seen.add(image.dtype))

    assert np.array_equal(paint(engine), plain)
    assert seen == {torch.float16}


def test_a_bf16_engine_paints_nearly_the_picture_of_an_fp32_one(engine: Engine, bf16_engine: Engine) -> None:
    in_fp32, in_bf16 = paint(engine), paint(bf16_engine)

    assert np.abs(in_fp32.astype(int) - in_bf16.astype(int)).mean() < 4


def test_the_number_of_threads_is_set(tiny_flux_folder: Path) -> None:
    threads_before = torch.get_num_threads()

    load_engine(tiny_flux_folder, EngineOptions(device="cpu", num_threads=1))

    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads_before)


def test_a_checkpoint_of_five_level_autoencoder_paints_multiples_of_32(taef_engine: Engine) -> None:
    assert taef_engine.spec.size_multiple == 32
    assert paint(taef_engine, width=96, height=64).shape == (64, 96, 3)


def _denoised(engine: Engine) -> Generation:
    generation = start(engine)
    denoise(engine, generation)
    return generation


class Questions(TorchFunctionMode):
    """Notes what would wait for a GPU, if the tensors were there."""

    ASK = ("item", "tolist", "__bool__", "__float__", "__int__", "nonzero", "cpu")

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: Any = None
    ) -> object:
        name = getattr(func, "__name__", "")
        if name in self.ASK:
            self.asked.append(name)
        if name in ("tensor", "as_tensor", "from_numpy"):
            self.asked.append(f"a new {name}")
        return func(*args, **kwargs or {})


def _poison(engine: Engine, generation: Generation, value: float) -> None:
    denoising = engine._denoising[generation]
    denoising.latents = denoising.latents.clone()
    denoising.latents[0, 3, 5] = value


def test_small_pictures_share_the_memory_of_a_large_one(tiny_flux_folder: Path) -> None:
    prepared = prepare_engine(tiny_flux_folder, EngineOptions(device="cpu", memory=2**30))
    side = int(prepared.spec.max_pixels**0.5)

    assert prepared.fitting_rows(side, side) == int(prepared.num_rows)
    assert prepared.fitting_rows(side // 4, side // 4) > prepared.num_rows * 2
    assert replace(prepared, num_rows=1.0).fitting_rows(side, side) == 1
