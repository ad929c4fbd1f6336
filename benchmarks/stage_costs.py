"""What the stages of one picture cost, measured at the engine: what an ideal server would take, and no more."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.step_batching import SPRITE
from safelight.engine.engine import Engine, load_engine
from safelight.picture.files import encode
from safelight.picture.generation import Generation
from safelight.picture.parameters import build_generation_request
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


def measure(engine: Engine, batch_size: int, first_seed: int) -> StageCosts:
    """Once; prompts are new for each `first_seed`."""
    marks = [time.perf_counter()]
    batch = [start(engine, first_seed + index) for index in range(batch_size)]
    marks.append(time.perf_counter())
    steps = 0
    while not batch[0].is_denoised:
        engine.step(batch)
        steps += 1
    marks.append(time.perf_counter())
    pixels = [engine.decode(each) for each in batch]
    marks.append(time.perf_counter())
    for each in pixels:
        encode(each, image_format="png")
    marks.append(time.perf_counter())
    for generation in batch:
        engine.release(generation)
    spans = [after - before for before, after in pairwise(marks)]
    return StageCosts(
        spans[0] / batch_size, spans[1] / steps / batch_size, spans[2] / batch_size, spans[3] / batch_size
    )
