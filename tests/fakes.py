"""An engine without a model, and dispatchers whose replicas are real child processes that run it.

`python tests/fakes.py OPTIONS --fd N` is the child. What a test wants of it is in `FakeEngineOptions`, and in the
prompt: `FAIL_START` in it makes `start` raise, `FAIL_STEP` makes `step` raise (for the whole batch), `NO_MEMORY` makes
`step` find no memory, `FAIL_ROW` gives that generation alone an error, `FAIL_PREVIEW` and `FAIL_DECODE` make `preview`
and `decode` raise, `EXIT` ends the process. `HEARD` is told as soon as it has come, before it is begun: see `Gate`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from msgspec import structs

from safelight.errors import ModelLoadError, NonFiniteValues, UnsupportedModel
from safelight.model.spec import Guidance, ModelSpec
from safelight.picture.generation import Generation, GenerationRequest
from safelight.picture.recipe import Backend
from safelight.serving.backends.local import LocalReplicas
from safelight.serving.backends.protocol import Launch, ReplicasFactory
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.messages import PROTOCOL_VERSION, Load, Submit, receive_message
from safelight.serving.replica import process
from safelight.serving.replica.engine import Engine
from safelight.settings import EngineOptions
from safelight.telemetry.log_lines import LogFormat

FAKE_SPEC = ModelSpec(
    name="fake",
    description="No model: the colour of the picture is a hash of the request",
    default_num_inference_steps=4,
    max_num_inference_steps=100,
    default_width=64,
    default_height=64,
    min_size=16,
    max_size=512,
    max_pixels=512 * 512,
    size_multiple=16,
    max_sequence_length=64,
    guidance=Guidance.NONE,
    default_guidance_scale=0.0,
)
STEP_S = "FAKE_ENGINE_STEP_S"
"""In the environment of a node it makes all engines there slow."""
DEADLINE_S = 60.0
"""Of every wait in a test; reached only by a bug."""


class FakeEngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the child behaves."""

    step_s: float = 0.0
    """Every step takes at least this long."""
    gate: str | None = None
    """A `Gate`'s file: step number k (from 1) of the process waits until k steps are allowed."""
    load_error: str | None = None
    """The message of the ModelLoadError that loading raises."""
    is_unsupported: bool = False
    """It is an UnsupportedModel."""
    load_gate: str | None = None
    """Loading waits until this file exists."""
    crash_on_load: bool = False
    kill_on_load: str | None = None
    """Loading ends as the kernel ends what needs too much memory, while this file exists."""
    plan: str = ""
    """How the model lies in memory; it is told before the model is loaded."""
    smaller: str = ""
    """The options of the next smaller plan."""
    picture_s: float | None = None
    """What the steps of the default picture take, by its own estimate."""
    decodes_beside_steps: bool = False
    """Decoding has a thread of its own, as on a CPU."""
    raise_on_load: str | None = None
    """Loading raises what nobody foresaw, with the text of this file, while it exists."""
    updated: str | None = None
    """It is of another version, while this file exists."""


@dataclass(frozen=True, slots=True)
class FakeEngineCounters:
    transformer_calls: int = 0
    prompt_cache_hits: int = 0
    prompt_cache_misses: int = 0


class FakeEngine:
    """Deterministic pixels, counted calls."""

    def __init__(
        self,
        spec: ModelSpec = FAKE_SPEC,
        options: FakeEngineOptions | None = None,
        *,
        on_call: Callable[[str, Sequence[Generation]], None] | None = None,
    ) -> None:
        self.spec = spec
        self._options = options or FakeEngineOptions()
        self._on_call = on_call or (lambda name, batch: None)
        self._counters = FakeEngineCounters()
        self._prompts: set[str] = set()
        self._held: set[Generation] = set()

    @property
    def backend(self) -> Backend:
        return Backend(device="cpu", dtype="float32", num_threads=1, torch="none")

    @property
    def picture_s(self) -> float | None:
        return self._options.picture_s

    @property
    def decodes_beside_steps(self) -> bool:
        return self._options.decodes_beside_steps

    @property
    def num_held(self) -> int:
        """Generations that were started and not released."""
        return len(self._held)

    def start(self, generation: Generation) -> None:
        self._on_call("start", [generation])
        request = generation.request
        if "FAIL_START" in request.prompt:
            raise RuntimeError("start failed, as asked")
        if request.prompt in self._prompts:
            self._counters = replace(self._counters, prompt_cache_hits=self._counters.prompt_cache_hits + 1)
        else:
            self._counters = replace(self._counters, prompt_cache_misses=self._counters.prompt_cache_misses + 1)
        self._prompts.add(request.prompt)
        self._held.add(generation)
        generation.num_steps = request.num_inference_steps
        generation.num_text_tokens = len(request.prompt.split())
        generation.batch_key = (request.width, request.height)

    def step(self, batch: Sequence[Generation]) -> None:
        self._counters = replace(self._counters, transformer_calls=self._counters.transformer_calls + 1)
        self._on_call("step", batch)
        self._wait_at_gate()
        time.sleep(self._options.step_s)
        assert len({generation.batch_key for generation in batch}) == 1
        assert all(generation in self._held and not generation.is_denoised for generation in batch)
        prompts = [generation.request.prompt for generation in batch]
        if any("EXIT" in prompt for prompt in prompts):
            os._exit(9)
        if any("NO_MEMORY" in prompt for prompt in prompts):
            raise MemoryError
        if any("FAIL_STEP" in prompt for prompt in prompts):
            raise RuntimeError("step failed, as asked")
        for generation in batch:
            generation.step_index += 1
            if "FAIL_ROW" in generation.request.prompt:
                generation.error = NonFiniteValues(f"step {generation.step_index} made NaN, as asked")

    def preview(self, generation: Generation) -> np.ndarray:
        self._on_call("preview", [generation])
        assert generation in self._held
        if "FAIL_PREVIEW" in generation.request.prompt:
            raise RuntimeError("preview failed, as asked")
        return expected_pixels(generation.request, generation.seed)[::4, ::4]

    def decode(self, generation: Generation) -> np.ndarray:
        self._on_call("decode", [generation])
        assert generation in self._held
        assert generation.is_denoised
        if "FAIL_DECODE" in generation.request.prompt:
            raise RuntimeError("decode failed, as asked")
        return expected_pixels(generation.request, generation.seed)

    def release(self, generation: Generation) -> None:
        self._held.discard(generation)

    def counters(self) -> FakeEngineCounters:
        return self._counters

    def _wait_at_gate(self) -> None:
        if self._options.gate is not None:
            path = Path(self._options.gate)
            while int(path.read_text() or 0) < self._counters.transformer_calls:
                time.sleep(0.001)


def expected_pixels(request: GenerationRequest, seed: int) -> np.ndarray:
    """The picture that FakeEngine makes: one colour, which every parameter changes."""
    recipe = (request.prompt, request.negative_prompt, seed, request.num_inference_steps, request.scheduler)
    source = request.source and (request.source.pixels, request.source.strength, request.source.mask)
    digest = hashlib.sha256(
        repr((*recipe, request.guidance_scale, request.true_cfg_scale, source, *request.loras)).encode()
    ).digest()
    colour = np.frombuffer(digest[:3], np.uint8)
    return np.broadcast_to(colour, (request.height, request.width, 3)).copy()


class Gate:
    """Lets the steps of a replica's process pass one by one, through a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._num_allowed = 0
        self.allow(0)

    def allow(self, num_steps: int) -> None:
        """Let so many more steps begin to compute (a step is counted before it waits here)."""
        self._num_allowed += num_steps
        partial = self.path.with_suffix(".partial")
        partial.write_text(str(self._num_allowed))
        partial.replace(self.path)

    def open(self) -> None:
        """Let all pass."""
        self.allow(1_000_000_000)

    def close(self) -> None:
        """Let none pass; those that have passed stay where they are."""
        self.allow(-self._num_allowed)

    @property
    def has_heard(self) -> bool:
        """Whether a prompt with `HEARD` has come, and with it all that was sent to the replica before."""
        return _heard(self.path).exists()


def _heard(gate: Path) -> Path:
    return gate.with_suffix(".heard")


@dataclass(frozen=True, kw_only=True)
class FakeDeployment:
    """How many fake replicas, and the limits of the dispatcher before them."""

    options: FakeEngineOptions = field(default_factory=FakeEngineOptions)
    spec: ModelSpec = FAKE_SPEC
    num_replicas: int = 1
    max_batch_size: int = 8
    max_concurrent_requests: int = 8
    max_queued_requests: int = 64
    hold_while_loading_s: float = 0.0
    result_cache_bytes: int = 0
    idle_unload_s: float = 0.0
    first_backoff_s: float = 0.01
    min_patience_s: float = 300.0
    log_format: LogFormat = "text"


def fake_command(options: FakeEngineOptions | None = None) -> list[str]:
    """The `command` of LocalReplicas that runs FakeEngine."""
    return [sys.executable, str(Path(__file__).resolve()), msgspec.json.encode(options or FakeEngineOptions()).decode()]


def fake_replicas(options: FakeEngineOptions | None = None) -> ReplicasFactory:
    """What makes replicas that run FakeEngine."""
    return partial(LocalReplicas, command=fake_command(options))


def fake_dispatcher(deployment: FakeDeployment | None = None) -> Dispatcher:
    """A dispatcher whose child processes run FakeEngine; not started yet."""
    deployment = deployment or FakeDeployment()
    options = EngineOptions(max_batch_size=deployment.max_batch_size)
    launch = Launch(
        load=Load(folder="/nowhere", spec=deployment.spec, options=options, log_format=deployment.log_format),
        num_replicas=deployment.num_replicas,
        max_concurrent_requests=deployment.max_concurrent_requests,
        min_patience_s=deployment.min_patience_s,
    )
    command = fake_command(deployment.options)
    return Dispatcher(
        LocalReplicas(launch, command=command, first_backoff_s=deployment.first_backoff_s),
        max_queued_requests=deployment.max_queued_requests,
        hold_while_loading_s=deployment.hold_while_loading_s,
        result_cache_bytes=deployment.result_cache_bytes,
        idle_unload_s=deployment.idle_unload_s,
    )


@asynccontextmanager
async def running_dispatcher(deployment: FakeDeployment | None = None) -> AsyncIterator[Dispatcher]:
    """A started dispatcher with every replica ready; stopped at the end."""
    dispatcher = fake_dispatcher(deployment)
    await dispatcher.start()
    try:
        await until(lambda: all(replica.state == "ready" for replica in dispatcher.snapshot().replicas))
        yield dispatcher
    finally:
        await dispatcher.stop()


async def until(condition: Callable[[], bool], *, timeout_s: float = DEADLINE_S) -> None:
    """Wait for what another process will make true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  the other process has no event to set
            await asyncio.sleep(0.002)


def fake_request(prompt: str = "a red square", **values: object) -> GenerationRequest:
    """A valid request with small values."""
    defaults: dict[str, object] = {
        "id": "r",
        "negative_prompt": None,
        "width": 64,
        "height": 64,
        "num_inference_steps": 4,
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "guidance_scale": 0.0,
        "true_cfg_scale": 1.0,
        "seed": 7,
        "timeout_s": DEADLINE_S,
    }
    return GenerationRequest(prompt=prompt, **(defaults | values))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class FakePrepared:
    """A fake engine before it is loaded."""

    message: Load
    options: FakeEngineOptions

    @property
    def plan(self) -> str:
        return self.options.plan

    @property
    def smaller(self) -> str:
        return self.options.smaller

    def fitting_rows(self, width: int, height: int) -> int:
        return 256

    def load(self) -> Engine:
        return _load_fake_engine(self.message, self.options)


def _load_fake_engine(load: Load, options: FakeEngineOptions) -> Engine:
    while options.load_gate is not None and not Path(options.load_gate).exists():
        time.sleep(0.005)
    if options.crash_on_load:
        os._exit(3)
    if options.kill_on_load is not None and Path(options.kill_on_load).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if options.raise_on_load is not None and Path(options.raise_on_load).exists():
        raise RuntimeError(Path(options.raise_on_load).read_text())
    if options.load_error is not None:
        raise (UnsupportedModel if options.is_unsupported else ModelLoadError)(options.load_error)
    return FakeEngine(load.spec, options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("options")
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    options = msgspec.json.decode(arguments.options, type=FakeEngineOptions)
    if STEP_S in os.environ:
        options = structs.replace(options, step_s=float(os.environ[STEP_S]))
    if options.gate is not None:
        _tell_what_is_heard(Path(options.gate))
    if options.updated is not None and Path(options.updated).exists():
        patch.object(process, "PROTOCOL_VERSION", PROTOCOL_VERSION + 1).start()
    process.run_replica(socket.socket(fileno=arguments.fd), lambda load: FakePrepared(load, options))


def _tell_what_is_heard(gate: Path) -> None:
    def receive(*arguments: Any) -> Any:
        message = receive_message(*arguments)
        if isinstance(message, Submit) and "HEARD" in message.request.prompt:
            _heard(gate).touch()
        return message

    patch.object(process, "receive_message", receive).start()


if __name__ == "__main__":
    main()
