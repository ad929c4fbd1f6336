"""What the stages of one picture cost, measured at the engine: what an ideal server would take, and no more."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, fields
from itertools import pairwise

from benchmarks.step_batching import SPRITE
from safelight.engine.engine import Engine, load_engine
from safelight.picture.files import encode
from safelight.picture.generation import Generation
from safelight.picture.parameters import build_generation_request
from safelight.serving.backends.child_environment import child_environment, share_of_cores
from safelight.settings import EngineOptions


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Seconds of one row."""

    encode: float
    step: float
    """In a batch of `batch_size`."""
    decode: float
    png: float

    def picture(self, steps: int) -> float:
        return self.encode + steps * self.step + self.decode + self.png


@dataclass(frozen=True, slots=True)
class Costs:
    """The same stages by both clocks. Where all cores are busy, CPU is what a picture takes from the others."""

    wall: StageCosts
    cpu: StageCosts


def become_a_replica() -> None:
    """Start this benchmark again with what a replica's process sees, unless it does: its threads wait as theirs do."""
    environment = child_environment(dict(os.environ), num_threads=share_of_cores(1))
    spec = sys.modules["__main__"].__spec__
    if spec is not None and dict(os.environ) != environment:
        os.execve(sys.executable, [sys.executable, "-m", spec.name, *sys.argv[1:]], environment)


def load_sprite(num_threads: int | None = None) -> Engine:
    return load_engine(SPRITE, EngineOptions(num_threads=num_threads))


def start(engine: Engine, seed: int, steps: int = 4, size: int = 256) -> Generation:
    request = build_generation_request(
        engine.spec,
        id=str(seed),
        prompt=f"a red cat number {seed}",
        seed=seed,
        num_inference_steps=steps,
        width=size,
        height=size,
    )
    generation = Generation(request=request, image_index=0, arrived_at=0.0)
    engine.start(generation)
    return generation


def measure(engine: Engine, batch_size: int, first_seed: int) -> Costs:
    """Once; prompts are new for each `first_seed`."""
    marks = [_now()]
    batch = [start(engine, first_seed + index) for index in range(batch_size)]
    marks.append(_now())
    steps = 0
    while not batch[0].is_denoised:
        engine.step(batch)
        steps += 1
    marks.append(_now())
    pixels = [engine.decode(each) for each in batch]
    marks.append(_now())
    for each in pixels:
        encode(each, image_format="png")
    marks.append(_now())
    for generation in batch:
        engine.release(generation)
    wall, cpu = (_of_a_row([mark[clock] for mark in marks], steps, batch_size) for clock in (0, 1))
    return Costs(wall, cpu)


def mean(costs: list[StageCosts]) -> StageCosts:
    return StageCosts(*(sum(getattr(each, field.name) for each in costs) / len(costs) for field in fields(StageCosts)))


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _of_a_row(marks: list[float], steps: int, batch_size: int) -> StageCosts:
    encode_s, steps_s, decode_s, png_s = (after - before for before, after in pairwise(marks))
    return StageCosts(encode_s / batch_size, steps_s / steps / batch_size, decode_s / batch_size, png_s / batch_size)
