"""A dispatcher in the test's own event loop: it makes real pictures at once, or whatever error a test asks for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

import numpy as np

from safelight.errors import NotReady, Overloaded, SafelightError
from safelight.model.spec import Guidance, ModelSpec
from safelight.picture.files import encode
from safelight.picture.generation import (
    Completed,
    Event,
    Failed,
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ImageCompleted,
    Preview,
    Queued,
    Step,
    Timings,
)
from safelight.serving.backends.protocol import ReplicaState
from safelight.serving.counters import Counters, StageTime
from safelight.serving.dispatcher import ReplicaSnapshot, Snapshot

SPEC = ModelSpec(
    name="tiny",
    default_num_inference_steps=4,
    max_num_inference_steps=50,
    default_width=64,
    default_height=64,
    min_size=32,
    max_size=256,
    max_pixels=256 * 256,
    size_multiple=16,
    max_sequence_length=64,
    guidance=Guidance.NONE,
    default_guidance_scale=0.0,
)

SNAPSHOT = Snapshot(
    queued=3,
    running=2,
    replicas=(
        ReplicaSnapshot(
            name="replica 0", state=ReplicaState.LOADING, detail="killed by SIGKILL", whereabouts={"pid": 7}
        ),
    ),
    counters=Counters(
        transformer_calls=11,
        steps_run=20,
        steps_saved=7,
        prompt_cache_hits=4,
        prompt_cache_misses=5,
        replica_restarts=1,
        batch_sizes={4: 2, 1: 6, 2: 3},
        stages={"decode": StageTime(5, 2.5)},
    ),
)


@dataclass
class FakeDispatcher:
    """What the app needs of a Dispatcher. `requests` are those it was given."""

    spec: ModelSpec = SPEC
    is_ready: bool = True
    error: Exception | None = None
    warnings: tuple[str, ...] = ()
    requests: list[GenerationRequest] = field(default_factory=list)
    states: tuple[ReplicaState, ...] | None = None
    """Of its replicas, if they are not the one of `SNAPSHOT`."""
    positions: tuple[int, ...] = ()
    """In the queue, told one after the other."""
    whereabouts: dict[str, str | int] = field(default_factory=dict)
    """Of each of these."""

    @property
    def is_available(self) -> bool:
        return self.is_ready

    async def start(self) -> None:
        pass

    async def drain(self, timeout_s: float) -> None:
        pass

    def snapshot(self) -> Snapshot:
        if self.states is None:
            return SNAPSHOT
        replicas = (ReplicaSnapshot(name="r", state=each, whereabouts=self.whereabouts) for each in self.states)
        return replace(SNAPSHOT, replicas=tuple(replicas))

    def check(self) -> None:
        if isinstance(self.error, Overloaded | NotReady):
            raise self.error

    def note_use(self) -> None:
        pass

    def check_at_door(self) -> None:
        self.check()

    async def wait_while_loading(self, timeout_s: float) -> None:
        self.check()

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        self.check()
        return self._stream(request)

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        for position in (0, *self.positions):
            yield Queued(position)
        steps = request.num_inference_steps
        shown = {round(i * steps / (request.num_previews + 1)): i - 1 for i in range(1, request.num_previews + 1)}
        for index in range(1, steps + 1):
            for image_index in range(request.num_images_per_prompt):
                yield Step(image_index, index, steps)
                if index in shown:
                    yield Preview(image_index, shown[index], picture(request, index))
        try:
            result = await self.generate(request)
            if request.is_streamed and len(result.images) > 1:  # the others come with Completed
                last = len(result.images) - 1
                yield ImageCompleted(last, result.images[last], result.warnings, result.num_text_tokens)
            yield Completed(result)
        except SafelightError as error:
            yield Failed(error)

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        images = tuple(
            GeneratedImage(content=picture(request, request.seed + i), seed=request.seed + i)
            for i in range(request.num_images_per_prompt)
        )
        warnings = tuple(dict.fromkeys(request.warnings + self.warnings))
        return GenerationResult(images=images, warnings=warnings, timings=Timings(), num_text_tokens=5)


def picture(request: GenerationRequest, seed: int) -> bytes:
    """Noise that is the seed's own."""
    noise = np.random.default_rng(seed).integers(0, 256, (request.height, request.width, 3), dtype=np.uint8)
    return encode(noise, image_format=request.image_format, image_quality=request.image_quality)
