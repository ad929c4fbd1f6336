"""diffusers' noise schedulers, each on the model's true schedule: flow sigmas with the checkpoint's own shift.

diffusers' schedulers keep an index and past outputs, so each generation owns one. FluxPipeline cannot run all of them
(Heun takes no sigmas; DPM++ only with a changed shift): here each is set up without it.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

SchedulerConfig = Mapping[str, Any]

_FLOW_MATCH: dict[str, Any] = {
    "FlowMatchEulerDiscreteScheduler": FlowMatchEulerDiscreteScheduler,
    "FlowMatchLCMScheduler": FlowMatchLCMScheduler,
}
_MULTISTEP: dict[str, Any] = {
    "UniPCMultistepScheduler": UniPCMultistepScheduler,
    "DPMSolverMultistepScheduler": DPMSolverMultistepScheduler,
}


class NoiseScheduler:
    """One generation's way from noise to image: a diffusers scheduler and the timesteps of its transformer calls.

    Whoever starts from an image skips the first steps: `first_step` is the one to begin with.
    """

    def __init__(self, scheduler: Any, *, first_step: int = 0) -> None:
        first_call = first_step * scheduler.order
        scheduler.set_begin_index(first_call)
        self._scheduler = scheduler
        self._takes_generator = "generator" in inspect.signature(scheduler.step).parameters
        self.timesteps: Tensor = scheduler.timesteps[first_call:]
        self.sigmas: Tensor = scheduler.sigmas[first_call:]
        """The share of noise in the latents before each call; one more than there are calls, and the last is 0."""

    @property
    def num_calls(self) -> int:
        """Transformer calls until the image is denoised; Heun takes two a step, but for the last."""
        return len(self.timesteps)

    def step(self, velocity: Tensor, call_index: int, latents: Tensor, generator: torch.Generator) -> Tensor:
        """The latents after transformer call `call_index`; calls come in order."""
        options = {"generator": generator} if self._takes_generator else {}
        timestep = self.timesteps[call_index]
        stepped: Tensor = self._scheduler.step(velocity, timestep, latents, return_dict=False, **options)[0]
        return stepped


def build_noise_scheduler(
    name: str, config: SchedulerConfig, *, num_inference_steps: int, image_seq_len: int, strength: float = 1.0
) -> NoiseScheduler:
    """The scheduler of diffusers class `name`, ready for its first step; `config` is the checkpoint's.

    `strength` is the share of the steps that are taken, rounded up.
    """
    # As FluxImg2ImgPipeline.get_timesteps rounds, float for float.
    first_step = int(max(num_inference_steps - min(num_inference_steps * strength, num_inference_steps), 0))
    scheduler = _build(name, config, num_inference_steps, image_seq_len)
    return NoiseScheduler(scheduler, first_step=first_step)


def _build(name: str, config: SchedulerConfig, num_inference_steps: int, image_seq_len: int) -> Any:
    if name in _FLOW_MATCH:
        return _flow_match(_FLOW_MATCH[name], config, num_inference_steps, image_seq_len)
    if name in _MULTISTEP:
        return _multistep(_MULTISTEP[name], config, num_inference_steps, image_seq_len)
    assert name == "FlowMatchHeunDiscreteScheduler", f"{name} is in SCHEDULER_ALIASES but not built here"
    return _heun(config, num_inference_steps, image_seq_len)


def _flow_match(scheduler_class: Any, config: SchedulerConfig, num_inference_steps: int, image_seq_len: int) -> Any:
    accepted = inspect.signature(scheduler_class.__init__).parameters
    scheduler = scheduler_class(**{key: value for key, value in config.items() if key in accepted})
    sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
    scheduler.set_timesteps(sigmas=sigmas, mu=_dynamic_mu(config, image_seq_len))
    return scheduler


def _heun(config: SchedulerConfig, num_inference_steps: int, image_seq_len: int) -> Any:
    """Heun on Euler's sigmas; its own `set_timesteps` shifts twice and spends its last step on the last thousandth."""
    euler = _flow_match(FlowMatchEulerDiscreteScheduler, config, num_inference_steps, image_seq_len)
    heun = FlowMatchHeunDiscreteScheduler(num_train_timesteps=euler.config.num_train_timesteps)
    heun.set_timesteps(num_inference_steps)
    heun.sigmas = torch.cat([euler.sigmas[:1], euler.sigmas[1:-1].repeat_interleave(2), euler.sigmas[-1:]])
    heun.timesteps = torch.cat([euler.timesteps[:1], euler.timesteps[1:].repeat_interleave(2)])
    return heun


def _multistep(scheduler_class: Any, config: SchedulerConfig, num_inference_steps: int, image_seq_len: int) -> Any:
    scheduler = scheduler_class(
        num_train_timesteps=config.get("num_train_timesteps", 1000),
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=_shift(config, image_seq_len),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # diffusers hands a tensor to numpy the old way
        scheduler.set_timesteps(num_inference_steps)
    return scheduler


def _shift(config: SchedulerConfig, image_seq_len: int) -> float:
    """The factor s of the time shift s * t / (1 + (s - 1) * t)."""
    mu = _dynamic_mu(config, image_seq_len)
    if mu is None:
        return float(config.get("shift", 1.0))
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


def _dynamic_mu(config: SchedulerConfig, image_seq_len: int) -> float | None:
    """The shift that grows with the image, as FluxPipeline's calculate_shift; None if the checkpoint's is fixed."""
    if not config.get("use_dynamic_shifting", False):
        return None
    base_length, max_length = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base_shift, max_shift = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (max_shift - base_shift) / (max_length - base_length)
    return float(image_seq_len * slope + base_shift - slope * base_length)
