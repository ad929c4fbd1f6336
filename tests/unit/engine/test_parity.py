"""The same seed gives the picture of diffusers.FluxPipeline, to one part in 255 of each channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchLCMScheduler, FluxPipeline, UniPCMultistepScheduler

from safelight.engine.engine import Engine
from tests.unit.engine.drive import paint

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZES = [(64, 64), (96, 64)]
STEPS = [1, 4, 9]
GUIDED = {"negative_prompt": "a blue dog", "true_cfg_scale": 4.0}
SCHEDULERS: dict[str, Any] = {
    "lcm": FlowMatchLCMScheduler,
    "unipc": UniPCMultistepScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
}


@pytest.fixture(scope="session")
def pipeline(tiny_flux_folder: Path) -> FluxPipeline:
    return _load_pipeline(tiny_flux_folder)


@pytest.fixture(scope="session")
def dev_pipeline(tiny_flux_dev_folder: Path) -> FluxPipeline:
    return _load_pipeline(tiny_flux_dev_folder)


@pytest.fixture(scope="session")
def taef_pipeline(tiny_flux_taef_folder: Path) -> FluxPipeline:
    return _load_pipeline(tiny_flux_taef_folder)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
def test_a_schnell_picture_is_the_pipelines(
    engine: Engine, pipeline: FluxPipeline, size: tuple[int, int], steps: int, guidance: dict[str, Any]
) -> None:
    _assert_same_picture(engine, pipeline, "euler", size, steps, guidance)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("guidance", [{}, {"guidance_scale": 7.0}, GUIDED], ids=["default", "strong", "guided"])
def test_a_picture_with_embedded_guidance_is_the_pipelines(
    dev_engine: Engine, dev_pipeline: FluxPipeline, size: tuple[int, int], steps: int, guidance: dict[str, Any]
) -> None:
    _assert_same_picture(dev_engine, dev_pipeline, "euler", size, steps, guidance)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
def test_a_picture_of_the_tiny_autoencoder_is_the_pipelines(
    taef_engine: Engine, taef_pipeline: FluxPipeline, steps: int, guidance: dict[str, Any]
) -> None:
    _assert_same_picture(taef_engine, taef_pipeline, "euler", (96, 64), steps, guidance)


@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("scheduler", ["lcm", "unipc"])
def test_other_schedulers_on_a_fixed_shift_give_the_pipelines_picture(
    engine: Engine, pipeline: FluxPipeline, scheduler: str, steps: int, guidance: dict[str, Any]
) -> None:
    _assert_same_picture(engine, pipeline, scheduler, (96, 64), steps, guidance)


@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("scheduler", ["lcm", "unipc", "dpmpp"])
def test_other_schedulers_on_a_dynamic_shift_give_the_pipelines_picture(
    dev_engine: Engine, dev_pipeline: FluxPipeline, scheduler: str, steps: int, guidance: dict[str, Any]
) -> None:
    _assert_same_picture(dev_engine, dev_pipeline, scheduler, (96, 64), steps, guidance)


def _load_pipeline(folder: Path) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _assert_same_picture(
    engine: Engine,
    pipeline: FluxPipeline,
    scheduler: str,
    size: tuple[int, int],
    steps: int,
    guidance: dict[str, Any],
) -> None:
    expected = _pipeline_picture(engine, pipeline, scheduler, size, steps, guidance)

    pixels = paint(engine, scheduler=scheduler, width=size[0], height=size[1], num_inference_steps=steps, **guidance)

    assert pixels.shape == expected.shape
    assert expected.std() > 10
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1


def _pipeline_picture(
    engine: Engine,
    pipeline: FluxPipeline,
    scheduler: str,
    size: tuple[int, int],
    steps: int,
    guidance: dict[str, Any],
) -> Any:
    own_scheduler = pipeline.scheduler
    if scheduler in SCHEDULERS:
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": own_scheduler.config.shift}
        options = {} if scheduler == "lcm" else flow
        pipeline.scheduler = SCHEDULERS[scheduler].from_config(own_scheduler.config, **options)
    # FluxPipeline gives LCM no generator: its noise, like the first, then comes from torch's global one.
    torch.manual_seed(7)
    generator = None if scheduler == "lcm" else torch.Generator().manual_seed(7)
    picture = pipeline(
        "a red cat",
        width=size[0],
        height=size[1],
        num_inference_steps=steps,
        max_sequence_length=engine.spec.max_sequence_length,
        generator=generator,
        **{"guidance_scale": engine.spec.default_guidance_scale} | guidance,
    ).images[0]
    pipeline.scheduler = own_scheduler
    return np.array(picture)
