"""Straightening: the flow learns the straight line from each noise to the picture it made of that noise itself.

Reflow (https://arxiv.org/abs/2209.03003). The teacher's many small steps, guided, become the student's few;
since the student is still a flow, any number of steps stays valid.
"""

import argparse
import json
import time
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from training.sprite.captions import caption
from training.sprite.checkpoints import Average, load, log, resume_optimizers, save, stoppable
from training.sprite.devices import device, mixed_precision
from training.sprite.flow import ATTENTION, encoded_text, load_transformer, steps_done, velocity
from training.sprite.optimizer import descend, learning_rate, optimizers, set_learning_rate
from training.sprite.paths import work_folder
from training.sprite.scenes import random_scene
from training.sprite.text import TextEncoders, load_text_encoders

CHECKPOINT = "distilled.pt"
GRID = (8, 8)
PAIRS_PER_FILE = 512


@dataclass(frozen=True)
class Schedule:
    steps: int = 1500
    anneal: int = 700
    warm_up: int = 30
    batch: int = 64
    peak: float = 5e-4
    files: int = 16
    teacher_steps: int = 12
    guidance: float = 1.5
    silence_share: float = 0.1
    first_step_share: float = 0.35  # of the rows, trained at pure noise, where a 4-step picture is decided
    seed: int = 5


@dataclass(frozen=True, slots=True)
class Pairs:
    noise: np.ndarray
    latents: np.ndarray
    texts: tuple[str, ...]


def train(schedule: Schedule) -> None:
    _draw_pairs(schedule)
    torch.manual_seed(schedule.seed)
    student, encoders = load_transformer().requires_grad_(True), load_text_encoders()
    chosen = optimizers(student, schedule.peak)
    average = Average.of(student, 0.998)
    step, started = _resume(student, chosen, average), time.time()
    with stoppable() as stop:
        while step < schedule.steps and not stop.is_set():
            torch.manual_seed(schedule.seed * 1_000_003 + step)
            set_learning_rate(chosen, learning_rate(schedule, step))
            noise, latents, texts = _batch(schedule, step)
            sigma = _sigmas(schedule)
            noisy = torch.lerp(latents, noise, sigma[:, None, None])
            with sdpa_kernel(ATTENTION), mixed_precision():
                answer = velocity(student, noisy, sigma, encoded_text(encoders, texts), GRID)
            loss = (answer.float() - (noise - latents)).square().mean()
            descend(loss, student, chosen)
            average.update(student, step)
            step += 1
            if step % 25 == 0:
                log("distil", step=step, loss=round(loss.item(), 4), seconds=round(time.time() - started))
            if step % 250 == 0 or step == schedule.steps or stop.is_set():
                _save(student, chosen, average, step)


def is_of_this_flow() -> bool:
    """Whether there is a straightened flow, and it was made of the flow as it is now."""
    path = work_folder() / CHECKPOINT
    return path.exists() and load(path).get("flow") == steps_done()


@torch.no_grad()
def solve(
    transformer: FluxTransformer2DModel, noise: Tensor, text: tuple[Tensor, Tensor], silence: tuple[Tensor, Tensor],
    schedule: Schedule,
) -> Tensor:  # fmt: skip
    """Euler's steps from noise to picture, guided away from what an empty caption would give."""
    sigmas = torch.linspace(1, 0, schedule.teacher_steps + 1, device=noise.device)
    latents = noise
    for now, then in pairwise(sigmas):
        with mixed_precision():
            said = velocity(transformer, latents, now.expand(len(noise)), text, GRID).float()
            unsaid = velocity(transformer, latents, now.expand(len(noise)), silence, GRID).float()
        latents = latents + (then - now) * torch.lerp(unsaid, said, schedule.guidance)
    return latents


def _draw_pairs(schedule: Schedule) -> None:
    missing = [number for number in range(schedule.files) if not _path(number).exists()]
    if missing:
        teacher, encoders = load_transformer(), load_text_encoders()
        for number in missing:
            _draw_file(teacher, encoders, schedule, number)
            log("distil", pairs=(number + 1) * PAIRS_PER_FILE)


def _draw_file(teacher: FluxTransformer2DModel, encoders: TextEncoders, schedule: Schedule, number: int) -> None:
    random = Random(f"pairs {schedule.seed} {number}")
    texts = [_text(random, schedule.silence_share) for _ in range(PAIRS_PER_FILE)]
    noise = torch.randn(PAIRS_PER_FILE, 64, 128, generator=torch.Generator().manual_seed(number))
    silence = encoded_text(encoders, [""])
    found = []
    for start in range(0, PAIRS_PER_FILE, 64):
        text, part = encoded_text(encoders, texts[start : start + 64]), noise[start : start + 64].to(device())
        nothing = (silence[0].expand(len(part), -1, -1), silence[1].expand(len(part), -1))
        found.append(solve(teacher, part, text, nothing, schedule))
    part_file = _path(number).with_suffix(".part.npz")
    np.savez(
        part_file, noise=noise.half().numpy(), latents=torch.cat(found).half().cpu().numpy(), texts=json.dumps(texts)
    )
    part_file.rename(_path(number))


def _text(random: Random, silence_share: float) -> str:
    return "" if random.random() < silence_share else caption(random_scene(random, 0.55), random).text


@cache
def _open(number: int) -> Pairs:
    with np.load(_path(number)) as arrays:
        return Pairs(arrays["noise"], arrays["latents"], tuple(json.loads(str(arrays["texts"]))))


def _batch(schedule: Schedule, step: int) -> tuple[Tensor, Tensor, list[str]]:
    random = Random(f"distil {schedule.seed} {step}")
    rows = [(_open(random.randrange(schedule.files)), random.randrange(PAIRS_PER_FILE)) for _ in range(schedule.batch)]
    noise = torch.from_numpy(np.stack([pairs.noise[row] for pairs, row in rows])).to(device()).float()
    latents = torch.from_numpy(np.stack([pairs.latents[row] for pairs, row in rows])).to(device()).float()
    return noise, latents, [pairs.texts[row] for pairs, row in rows]


def _sigmas(schedule: Schedule) -> Tensor:
    anywhere = torch.rand(schedule.batch, device=device())
    return torch.where(torch.rand_like(anywhere) < schedule.first_step_share, 1.0, anywhere)


def _path(number: int) -> Path:
    """Pairs are of one flow: with more training, they are drawn anew."""
    folder = work_folder() / f"pairs-{steps_done():05}"
    folder.mkdir(exist_ok=True)
    return folder / f"{number:03}.npz"


def _resume(student: FluxTransformer2DModel, chosen: list[torch.optim.Optimizer], average: Average) -> int:
    if not is_of_this_flow():
        return 0
    state = load(work_folder() / CHECKPOINT)
    student.load_state_dict(state["weights"])
    average.weights = state["average"]
    resume_optimizers(chosen, state)
    return int(state["step"])


def _save(student: FluxTransformer2DModel, chosen: list[torch.optim.Optimizer], average: Average, step: int) -> None:
    state = {"weights": student.state_dict(), "average": average.weights, "step": step, "flow": steps_done()}
    save(work_folder() / CHECKPOINT, state | {"optimizers": [optimizer.state_dict() for optimizer in chosen]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--anneal", type=int, default=Schedule.anneal)
    given = parser.parse_args()
    train(Schedule(steps=given.steps, anneal=given.anneal))
