"""The heart of a replica: one thread that owns the device and gives every generation its steps.

Messages come in through a queue and go out through `send`. Encoding a prompt, making a preview and decoding an image
are stages of their own between two steps: `_has_paused_enough` says how long the running batch may wait for them. An
engine that can is given its decoding in a thread beside the steps. A generation that nobody wants any more is dropped
before the next transformer call.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from safelight.errors import DeadlineExceeded, EngineFailure, SafelightError
from safelight.model.memory.exhausted import is_out_of_memory, no_memory_for
from safelight.picture.content_credentials import ContentCredentials
from safelight.picture.generation import (
    Completed,
    Event,
    Failed,
    GeneratedImage,
    Generation,
    ImageCompleted,
    Preview,
    Step,
)
from safelight.picture.recipe import Origin
from safelight.serving.counters import Counters, StageName, StageTime
from safelight.serving.messages import (
    MAX_FRAME_BYTES,
    Cancel,
    GatewayMessage,
    Happened,
    ReplicaMessage,
    Stats,
    Submit,
)
from safelight.serving.replica.batcher import StepBatcher
from safelight.serving.replica.engine import Engine
from safelight.serving.replica.image_files import ImageFiles
from safelight.serving.replica.in_flight import InFlight
from safelight.serving.replica.told import Timed, stage_of
from safelight.telemetry.names import called, together

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """What an image encoder puts into the inbox; the generation carries the error if there is one."""

    generation: Generation
    content: bytes
    decoded: Timed
    filed: Timed
    """The making of the file."""


Inbox = queue.Queue[GatewayMessage | EncodedImage]
Work = Callable[[Generation], None]
"""Work on one generation that is no step, done by the device's thread."""


class ReplicaLoop:
    """Runs an engine for as long as the process lives."""

    def __init__(
        self,
        engine: Engine,
        inbox: Inbox,
        send: Callable[[ReplicaMessage], None],
        *,
        max_batch_size: int,
        origin: Origin,
        private_prompts: bool = False,
        credentials: ContentCredentials | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._send = send
        self._clock = clock
        self._batcher = StepBatcher(max_batch_size=max_batch_size)
        self._stages: deque[tuple[Work, Generation]] = deque()
        """What waits to be started, shown or decoded, in the order in which it came up."""
        self._tickets: dict[int, InFlight] = {}
        self._owners: dict[Generation, InFlight] = {}
        self._image_files = ImageFiles(origin, private_prompts=private_prompts, credentials=credentials)
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder") if engine.decodes_beside_steps else None
        self._decoding: dict[Generation, Future[None]] = {}
        """What the decoder's thread was given, until its file is there."""
        self._counters = Counters()
        self._step_s = 0.0

    def run(self) -> None:
        """Serve; the process ends when the gateway closes the socket (see `replica_process`)."""
        while batch := self._next_batch():
            self._step(batch)
            for generation in self._batcher.retire(batch):
                self._deliver(generation)

    def _next_batch(self) -> list[Generation]:
        pauses: list[float] = []
        while True:
            self._receive()
            if self._stages and not self._has_paused_enough(pauses):
                pauses.append(self._run_stage(*self._stages.popleft()))
            elif batch := self._batcher.next_batch():
                return batch

    def _has_paused_enough(self, pauses: Sequence[float]) -> bool:
        """A running batch waits for one stage call at most, unless they are short: several may fill the time of a step.

        With one call a step, a four-step model could never run more than two images at a time.
        """
        return len(self._batcher) > 0 and len(pauses) > 0 and sum(pauses) >= self._step_s

    def _receive(self) -> None:
        """Take in what has come, waiting only if there is nothing else to do. Then drop what is too old."""
        if not self._stages and not len(self._batcher):
            self._take(self._inbox.get())
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                break
            self._take(message)
        self._drop_expired()

    def _take(self, message: GatewayMessage | EncodedImage) -> None:
        match message:
            case Submit():
                self._accept(message)
            case Cancel(ticket=ticket):
                self._drop(ticket)
                self._report()
            case EncodedImage():
                self._collect(message)
            case _:
                logger.error("a %s came after the model was loaded; ignored", type(message).__name__)

    def _accept(self, message: Submit) -> None:
        arrived_at = self._clock() - message.age_s
        in_flight = InFlight(ticket=message.ticket, request=message.request, arrived_at=arrived_at)
        self._tickets[message.ticket] = in_flight
        self._owners.update(dict.fromkeys(in_flight.generations, in_flight))
        self._stages.extend((self._start, generation) for generation in in_flight.generations)

    def _drop_expired(self) -> None:
        now = self._clock()
        for in_flight in [each for each in self._tickets.values() if each.is_expired(now)]:
            timeout_s = in_flight.request.timeout_s
            self._fail(in_flight, DeadlineExceeded(f"the request was not done within its timeout of {timeout_s:g} s"))

    def _run_stage(self, stage: Work, generation: Generation) -> float:
        """Returns the seconds that it took."""
        began_at = self._clock()
        stage(generation)
        return self._clock() - began_at

    def _start(self, generation: Generation) -> None:
        generation.started_at = self._clock()
        if generation.image_index == 0:
            self._note("queue", [generation], self._since(generation.arrived_at))
        with self._failures_of([generation]):
            self._engine.start(generation)
        generation.encode_s = self._note("encode", [generation], self._since(generation.started_at))
        if generation.error is None:
            self._batcher.add(generation)
        else:
            self._fail(self._owners[generation], generation.error)

    def _step(self, batch: list[Generation]) -> None:
        began_at = self._clock()
        with self._failures_of(batch):
            self._engine.step(batch)
        self._step_s = self._note("step", batch, self._since(began_at))
        self._batcher.observe(batch, self._step_s)
        self._counters += Counters(steps_run=len(batch), batch_sizes={sum(each.num_rows for each in batch): 1})
        for generation in batch:
            generation.denoise_s += self._step_s
        self._report()
        for generation in batch:
            if generation.error is None:
                self._send_progress(generation)
                if generation.is_preview_due:
                    self._stages.append((self._preview, generation))

    def _send_progress(self, generation: Generation) -> None:
        if not generation.request.tells_steps:
            return
        ticket = self._owners[generation].ticket
        self._tell(ticket, Step(generation.image_index, generation.step_index, generation.num_steps))

    def _deliver(self, generation: Generation) -> None:
        """Hand a generation that left the batch to the next stage: decoding, or the end of its request."""
        in_flight = self._owners.get(generation)
        if in_flight is None:
            return  # a sibling of the same batch failed, and took it along
        if generation.error is not None:
            self._fail(in_flight, generation.error)
        elif self._decoder is None:
            self._stages.append((self._decode, generation))
        else:
            self._decoding[generation] = self._decoder.submit(self._make_pixels, in_flight, generation)

    def _preview(self, generation: Generation) -> None:
        """Show what a generation looks like; the picture itself, if it is about to come, makes that needless."""
        if generation.is_denoised:
            return
        in_flight, began_at = self._owners[generation], self._clock()
        pixels = np.empty((0, 0, 3), np.uint8)
        with self._failures_of([generation]):
            pixels = self._engine.preview(generation)
        self._note("preview", [generation], self._since(began_at))
        if generation.error is not None:
            self._fail(in_flight, generation.error)
            return
        self._image_files.thread_of(in_flight.ticket, generation).submit(
            self._encode_preview, in_flight.ticket, generation, generation.num_previews_made, pixels
        )
        generation.num_previews_made += 1

    def _encode_preview(self, ticket: int, generation: Generation, index: int, pixels: np.ndarray) -> None:
        """Runs in a thread of its own, and sends by itself: the inbox is read only after the step that is running."""
        with self._failures_of([generation]):
            content = self._image_files.preview(generation, pixels)
            self._tell(ticket, Preview(generation.image_index, index, content))

    def _decode(self, generation: Generation) -> None:
        self._make_pixels(self._owners[generation], generation)
        self._engine.release(generation)

    def _make_pixels(self, in_flight: InFlight, generation: Generation) -> None:
        """Runs in the decoder's thread, if there is one."""
        began_at, pixels = self._clock(), np.empty((0, 0, 3), np.uint8)
        with self._failures_of([generation]):
            pixels = self._engine.decode(generation)
        thread = self._image_files.thread_of(in_flight.ticket, generation)
        thread.submit(self._encode_image, in_flight, generation, pixels, self._since(began_at))

    def _encode_image(self, in_flight: InFlight, generation: Generation, pixels: np.ndarray, decoded: Timed) -> None:
        """Runs in a thread of its own, and reports through the inbox; streamed, it is sent as a preview is."""
        request, began_at, content = generation.request, self._clock(), b""
        if generation.error is None and generation in self._owners:  # else nobody waits for it any more
            with self._failures_of([generation]):
                content = self._image_files.picture(generation, pixels)
                if request.is_streamed and request.num_images_per_prompt > 1:
                    self._send_image(in_flight, generation, content)
        self._inbox.put(EncodedImage(generation, content, decoded, self._since(began_at)))

    def _send_image(self, in_flight: InFlight, generation: Generation, content: bytes) -> None:
        self._tell(
            in_flight.ticket,
            ImageCompleted(
                generation.image_index,
                GeneratedImage(content=content, seed=generation.seed),
                in_flight.warnings_of(generation),
                generation.num_text_tokens,
            ),
        )

    def _collect(self, encoded: EncodedImage) -> None:
        generation = encoded.generation
        if self._decoding.pop(generation, None) is not None:
            self._engine.release(generation)
        in_flight = self._owners.get(generation)
        if in_flight is None:
            return  # cancelled meanwhile
        in_flight.decode_s += self._note("decode", [generation], encoded.decoded)
        if generation.error is None:
            in_flight.image_encode_s += self._note("image_encode", [generation], encoded.filed)
            in_flight.images[generation.image_index] = GeneratedImage(content=encoded.content, seed=generation.seed)
        if in_flight.num_bytes > MAX_FRAME_BYTES // 2:
            generation.error = EngineFailure(
                f"the images have {in_flight.num_bytes} bytes; ask for fewer or smaller ones, or for another format"
            )
        if generation.error is not None:
            self._fail(in_flight, generation.error)
        elif in_flight.is_complete:
            self._finish(in_flight)

    def _finish(self, in_flight: InFlight) -> None:
        self._forget(in_flight)
        self._report()
        self._tell(in_flight.ticket, Completed(in_flight.result(finished_at=self._clock())))

    def _fail(self, in_flight: InFlight, error: SafelightError) -> None:
        """End a request with an error; the siblings of the image that failed go with it."""
        self._drop(in_flight.ticket)
        self._report()
        self._tell(in_flight.ticket, Failed(error))

    def _tell(self, ticket: int, event: Event) -> None:
        self._send(Happened(ticket, event))

    def _drop(self, ticket: int) -> None:
        in_flight = self._tickets.get(ticket)
        if in_flight is None:
            return  # it was done before the gateway's message came
        self._counters += Counters(steps_saved=in_flight.num_remaining_steps)
        self._forget(in_flight)

    def _forget(self, in_flight: InFlight) -> None:
        del self._tickets[in_flight.ticket]
        for generation in in_flight.generations:
            del self._owners[generation]
            self._batcher.drop(generation)
            decoding = self._decoding.get(generation)
            if decoding is None or decoding.cancel():
                self._decoding.pop(generation, None)
                self._engine.release(generation)  # else it is released when its pixels are made
        self._stages = deque(stage for stage in self._stages if stage[1] in self._owners)

    @contextmanager
    def _failures_of(self, batch: Sequence[Generation]) -> Iterator[None]:
        """What goes wrong inside becomes the error of these generations; the replica goes on serving."""
        try:
            yield
        except SafelightError as error:
            _set_error(batch, error)
        except Exception as error:  # noqa: BLE001  the one place, and it is logged: a bug must not end the replica
            with called(together(generation.request.names for generation in batch)):
                _set_error(batch, _failure_of(batch, error))

    def _since(self, began_at: float) -> Timed:
        return Timed(began_at, self._clock() - began_at)

    def _note(self, stage: StageName, batch: Sequence[Generation], timed: Timed) -> float:
        """Count the time of a stage, and tell of it where it is traced. Returns the seconds that it took."""
        self._counters += Counters(stages={stage: StageTime(1, timed.seconds)})
        for generation in batch:
            if generation.request.names.is_traced and generation in self._owners:
                self._tell(self._owners[generation].ticket, stage_of(stage, generation, batch, timed))
        return timed.seconds

    def _report(self) -> None:
        """Before the message that tells the gateway of it, so that whoever sees the one can see the other."""
        engine = self._engine.counters()
        self._send(
            Stats(
                self._counters
                + Counters(
                    transformer_calls=engine.transformer_calls,
                    prompt_cache_hits=engine.prompt_cache_hits,
                    prompt_cache_misses=engine.prompt_cache_misses,
                )
            )
        )


def _failure_of(batch: Sequence[Generation], error: Exception) -> EngineFailure:
    """What a client is told of a bug, or of want of memory; the log has all of it."""
    if is_out_of_memory(error):
        logger.error("there was no memory for a batch of %d: %s", len(batch), error)
        request = batch[0].request
        return EngineFailure(no_memory_for(request.width, request.height, beside=len(batch) - 1))
    logger.error("the engine failed on a batch of %d", len(batch), exc_info=error)
    reason = type(error).__name__
    return EngineFailure(f"the model could not make this image ({reason}); the server's log says why")


def _set_error(batch: Sequence[Generation], error: SafelightError) -> None:
    for generation in batch:
        generation.error = error
