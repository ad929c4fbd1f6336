"""One picture as `safelight generate` makes it: when each stage of its replica began and ended, and what it took."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.process_watch import ReplicaWatch
from safelight.model.checkpoint import read_model_spec
from safelight.picture.generation import Completed, Failed, Step
from safelight.picture.parameters import build_generation_request
from safelight.serving.backends.registry import find_factory
from safelight.serving.start import create_dispatcher
from safelight.settings import Settings

PROMPT = "an astronaut riding a horse"
DAY_S = 86_400.0


@dataclass(slots=True)
class Run:
    """One picture: when each of its stages began and ended."""

    name: str
    watch: ReplicaWatch
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    picture: bytes = b""

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        for stage, start, stop in self.stages:
            yield self.name, stage, f"{stop - start:.1f}", f"{self.watch.cpu_between(start, stop):.1f}"


async def generate(folder: Path, settings: Settings, *, size: int, steps: int) -> Run:
    """What `safelight generate` does with a folder, and when."""
    spec = read_model_spec(folder)
    request = build_generation_request(
        spec,
        id=uuid.uuid4().hex,
        prompt=PROMPT,
        width=size,
        height=size,
        num_inference_steps=steps,
        seed=7,
        timeout_s=DAY_S,
    )
    dispatcher = create_dispatcher(find_factory(settings), settings, folder, spec)
    with ReplicaWatch() as watch:
        run = Run(f"generate, {steps} step{'s' if steps > 1 else ''}", watch)
        begun_at = time.perf_counter()
        await dispatcher.start()
        try:
            await dispatcher.wait_until_ready()
            at = time.perf_counter()
            run.stages.append(("start until ready", begun_at, at))
            ends = []
            async with aclosing(dispatcher.stream(request)) as events:
                async for event in events:
                    match event:
                        case Step():
                            ends.append(time.perf_counter())
                            print(f"step {event.index} of {event.of}", flush=True)
                        case Completed():
                            result = event.result
                        case Failed():
                            raise event.error
            ended_at = time.perf_counter()
        finally:
            await dispatcher.stop()
    encoded_at = at + result.timings.queue_s + result.timings.encode_s
    run.stages.append(("encode the prompt", at, encoded_at))
    run.stages += [
        (f"step {i}", start, stop)
        for i, (start, stop) in enumerate(zip([encoded_at, *ends[:-1]], ends, strict=True), 1)
    ]
    run.stages += [("decode", ends[-1], ended_at), ("all", begun_at, ended_at)]
    run.picture = result.images[0].content
    check_picture(run.picture, size)
    return run


def check_picture(content: bytes, size: int) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert pixels.shape == (size, size, 3), pixels.shape
    assert pixels.std() > 0, "the picture is of one colour"
    print(f"a picture: {size}x{size}, {len(content)} bytes, mean {pixels.mean():.1f}, spread {pixels.std():.1f}")
