"""Each scheduler runs on the model's true schedule, also where FluxPipeline cannot run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FluxPipeline

from safelight.engine.denoising.noise_schedulers import NoiseScheduler, build_noise_scheduler
from safelight.engine.engine import Engine
from safelight.model.spec import SCHEDULER_ALIASES
from tests.unit.engine.drive import paint, start

SCHNELL = {"shift": 1.0, "num_train_timesteps": 1000}
SHIFTED = {"shift": 3.0, "num_train_timesteps": 1000}
DEV = {"shift": 3.0, "use_dynamic_shifting": True, "num_train_timesteps": 1000}


def build(alias: str, config: dict[str, Any], steps: int = 4, image_seq_len: int = 4096) -> NoiseScheduler:
    name = SCHEDULER_ALIASES[alias]
    return build_noise_scheduler(name, config, num_inference_steps=steps, image_seq_len=image_seq_len)


@pytest.mark.parametrize("alias", SCHEDULER_ALIASES)
def test_schnells_four_steps_stand_at_equal_distances(alias: str) -> None:
    noise_scheduler = build(alias, SCHNELL)

    distinct = sorted({float(timestep) for timestep in noise_scheduler.timesteps}, reverse=True)

    assert distinct == pytest.approx([1000, 750, 500, 250], abs=1)


@pytest.mark.parametrize("alias", SCHEDULER_ALIASES)
def test_a_fixed_shift_is_the_checkpoints(alias: str) -> None:
    noise_scheduler = build(alias, SHIFTED)

    distinct = sorted({float(timestep) for timestep in noise_scheduler.timesteps}, reverse=True)

    assert distinct == pytest.approx([1000, 900, 750, 500], abs=2)


@pytest.mark.parametrize("alias", SCHEDULER_ALIASES)
@pytest.mark.parametrize(("image_seq_len", "mu"), [(256, 0.5), (4096, 1.15)])
def test_a_dynamic_shift_grows_with_the_image(alias: str, image_seq_len: int, mu: float) -> None:
    noise_scheduler = build(alias, DEV, image_seq_len=image_seq_len)

    distinct = sorted({float(timestep) for timestep in noise_scheduler.timesteps}, reverse=True)

    expected = [1000 * np.exp(mu) / (np.exp(mu) + 1 / t - 1) for t in (1, 0.75, 0.5, 0.25)]
    assert distinct == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_heun_takes_two_calls_a_step_but_for_the_last(steps: int) -> None:
    assert build("heun", SCHNELL, steps).num_calls == 2 * steps - 1


@pytest.mark.parametrize("alias", ["euler", "lcm", "unipc", "dpmpp"])
def test_the_other_schedulers_take_one_call_a_step(alias: str) -> None:
    assert build(alias, SCHNELL, 9).num_calls == 9


@pytest.mark.parametrize("alias", SCHEDULER_ALIASES)
@pytest.mark.parametrize("steps", [1, 4, 30])
def test_every_scheduler_ends_at_the_image_that_the_velocity_points_to(alias: str, steps: int) -> None:
    """On a straight path from noise to image every solver is exact."""
    noise_scheduler = build(alias, SCHNELL, steps)
    generator = torch.Generator().manual_seed(0)
    noise, image = torch.randn(2, 1, 6, 16, generator=generator)

    latents = noise
    for index in range(noise_scheduler.num_calls):
        # The velocity at any point x of time t, for the one image that all paths lead to.
        sigma = float(noise_scheduler._scheduler.sigmas[index])
        latents = noise_scheduler.step((latents - image) / sigma, index, latents, generator)

    assert torch.allclose(latents, image, atol=2e-3)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_dpm_on_a_fixed_shift_paints_what_a_plain_loop_paints(
    engine: Engine, tiny_flux_folder: Path, steps: int
) -> None:
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)
    _set_timesteps_quietly(scheduler, steps)

    expected = _plain_loop(tiny_flux_folder, engine, scheduler.timesteps, scheduler.step)

    _assert_same_picture(paint(engine, scheduler="dpmpp", num_inference_steps=steps), expected)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_heun_paints_what_a_plain_loop_paints(engine: Engine, tiny_flux_folder: Path, steps: int) -> None:
    sigmas = [*torch.linspace(1, 1 / steps, steps).tolist(), 0.0]
    timesteps = [1000 * sigma for i, sigma in enumerate(sigmas[:-1]) for _ in range(1 if i == 0 else 2)]

    expected = _plain_loop(tiny_flux_folder, engine, torch.tensor(timesteps), _TextbookHeun(sigmas).step)

    _assert_same_picture(paint(engine, scheduler="heun", num_inference_steps=steps), expected)


def test_each_generation_owns_its_scheduler(engine: Engine) -> None:
    first, second = start(engine, scheduler="unipc"), start(engine, scheduler="unipc")

    engine.step([first])

    assert engine._denoising[second].noise_scheduler._scheduler.step_index is None


class _TextbookHeun:
    """Heun's method written down again: the mean of the slopes at both ends; Euler for the last step."""

    def __init__(self, sigmas: list[float]) -> None:
        self._sigmas = sigmas
        self._index = 0
        self._start: tuple[torch.Tensor, torch.Tensor] | None = None

    def step(self, velocity: torch.Tensor, _: Any, latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        if self._start is None:
            distance = self._sigmas[self._index + 1] - self._sigmas[self._index]
            if self._sigmas[self._index + 1] > 0:
                self._start = (latents, velocity)
            return (latents + distance * velocity,)
        distance = self._sigmas[self._index + 1] - self._sigmas[self._index]
        start, slope = self._start
        self._start = None
        self._index += 1
        return (start + distance * (slope + velocity) / 2,)


@torch.no_grad()
def _plain_loop(folder: Path, engine: Engine, timesteps: torch.Tensor, step: Any) -> Any:
    """FluxPipeline's loop for "a red cat", 64x64, seed 7, with any scheduler's timesteps and step."""
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    embeds, pooled, text_ids = pipeline.encode_prompt("a red cat", max_sequence_length=engine.spec.max_sequence_length)
    generator = torch.Generator().manual_seed(7)
    channels = pipeline.transformer.config.in_channels // 4
    latents, image_ids = pipeline.prepare_latents(1, channels, 64, 64, embeds.dtype, "cpu", generator)
    for timestep in timesteps:
        velocity = pipeline.transformer(
            hidden_states=latents,
            timestep=timestep.expand(1).float() / 1000,
            pooled_projections=pooled,
            encoder_hidden_states=embeds,
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        latents = step(velocity, timestep, latents, return_dict=False)[0]
    latents = pipeline._unpack_latents(latents, 64, 64, pipeline.vae_scale_factor)
    config = pipeline.vae.config
    image = pipeline.vae.decode(latents / config.scaling_factor + config.shift_factor, return_dict=False)[0]
    return np.array(pipeline.image_processor.postprocess(image)[0])


def _set_timesteps_quietly(scheduler: DPMSolverMultistepScheduler, steps: int) -> None:
    with pytest.warns(DeprecationWarning, match="__array__"):
        scheduler.set_timesteps(steps)


def _assert_same_picture(pixels: Any, expected: Any) -> None:
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1
