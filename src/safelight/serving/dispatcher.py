"""The gateway's side of serving: a request goes in, events or a result come out, whichever replica makes them.

Cancelling the task that waits, or closing the stream, cancels the work: that is how a client's disconnect arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import TypeGuard, TypeVar

from safelight.errors import DeadlineExceeded, GenerationCancelled, NotReady, ReplicaFull, ReplicaLost, SafelightError
from safelight.model.spec import ModelSpec
from safelight.picture.generation import Completed, Event, Failed, GenerationRequest, GenerationResult, Queued
from safelight.serving.admission import Admission
from safelight.serving.backends.protocol import Replica, Replicas, ReplicaState
from safelight.serving.counters import Counters
from safelight.serving.result_cache import ResultCache
from safelight.serving.scaling import Autoscaler, ScalableReplicas, Scaling
from safelight.serving.traces import traced
from safelight.serving.unloading import Unloading
from safelight.telemetry.spans import current_span, note

SHUTDOWN_RETRY_AFTER_S = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSnapshot:
    """One replica, as /health shows it."""

    name: str
    state: ReplicaState
    detail: str = ""
    """Why it ended the last time, or why it cannot be started; of one that serves, how slow it is if it is slow."""
    whereabouts: Mapping[str, str | int] = field(default_factory=dict)
    restarts: int = 0
    plan: str = ""
    """How its model lies in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that /metrics and /health show. Counters only grow, over restarts of replicas too."""

    queued: int = 0
    running: int = 0
    replicas: tuple[ReplicaSnapshot, ...] = ()
    counters: Counters = field(default_factory=Counters)

    @property
    def restarts(self) -> int:
        return self.counters.replica_restarts


class Dispatcher:
    """Serves one model with one or more replicas."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        scaling: Scaling | None = None,
        max_queued_requests: int,
        max_queue_wait_s: float | None = None,
        hold_while_loading_s: float = 0.0,
        result_cache_bytes: int = 0,
        idle_unload_s: float = 0.0,
    ) -> None:
        self._replicas = replicas
        self._results = ResultCache(result_cache_bytes)
        self._unloading = Unloading(
            replicas, idle_s=idle_unload_s, is_idle=lambda: self._is_idle, on_change=self._on_change
        )
        self._admission = Admission(
            lambda: replicas.members,
            max_queued_requests=max_queued_requests,
            max_queue_wait_s=max_queue_wait_s,
            hold_while_loading_s=hold_while_loading_s,
            unloading=self._unloading,
        )
        self._autoscaler = (
            Autoscaler(scaling, replicas, lambda: self._admission.num_queued)
            if scaling is not None and isinstance(replicas, ScalableReplicas)
            else None
        )
        self._scaler: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._num_in_flight = 0
        self._is_draining = False
        replicas.on_change = self._on_change

    @property
    def spec(self) -> ModelSpec:
        """What the model can do."""
        return self._replicas.spec

    @property
    def is_ready(self) -> bool:
        """Whether a request that comes now can become a picture at once."""
        return not self._is_draining and not self._unloading.is_unloaded and self._has_ready_replica

    @property
    def is_available(self) -> bool:
        """Ready, or would be for whoever asks: its model has only left memory because nobody did."""
        return self.is_ready or (self._unloading.is_unloaded and not self._is_draining)

    @property
    def last_words(self) -> str:
        """What the replica whose error `wait_until_ready` raises wrote last to standard error; may hold secrets."""
        return self._replicas.members[0].last_words

    @property
    def picture_s(self) -> float | None:
        """Seconds that the steps of the default picture may take; None: next to nothing, or not known yet."""
        return next((each.picture_s for each in self._replicas.members if each.picture_s is not None), None)

    async def start(self) -> None:
        """Start the replicas; `wait_until_ready` waits for the first of them to have loaded the model."""
        await self._replicas.start()
        if self._autoscaler is not None:
            self._scaler = asyncio.create_task(self._autoscaler.run(), name="autoscaler")
        self._unloading.start()

    async def wait_for_plan(self) -> str:
        """How the model is about to lie in memory, in one line; empty if it is ready, or was given up, without one."""
        over = (ReplicaState.READY, ReplicaState.FAILED, ReplicaState.STOPPED)
        while not (plan := next((each.plan for each in self._replicas.members if each.plan), "")):
            if any(replica.state in over for replica in self._replicas.members):
                break
            await self._wait_for_change()
        return plan

    async def wait_until_ready(self) -> None:
        """Raises what keeps the model from loading once no replica can become ready any more."""
        while not self.is_available:
            if all(each.state in (ReplicaState.FAILED, ReplicaState.STOPPED) for each in self._replicas.members):
                raise self._replicas.members[0].error or NotReady("the server is shutting down")
            await self._wait_for_change()

    async def drain(self, timeout_s: float) -> None:
        """Refuse what is new, finish what was admitted, for `timeout_s` at most; then stop."""
        self._refuse_new()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._num_in_flight:
                    await self._wait_for_change()
        await self.stop()

    async def stop(self) -> None:
        """End the replicas now. What is queued or running fails with GenerationCancelled."""
        self._refuse_new()
        self._admission.refuse_waiting(GenerationCancelled("the server is shutting down; send the request again"))
        if self._scaler is not None:
            self._scaler.cancel()
            await asyncio.gather(self._scaler, return_exceptions=True)
        await self._unloading.stop()
        await self._replicas.stop()

    def check(self) -> None:
        """Raises Overloaded or NotReady if a request that comes now is refused."""
        self._admission.check()

    def check_at_door(self) -> None:
        """As `check`, but one that `wait_while_loading` would hold is let in."""
        self.note_use()
        self._admission.check_at_door()

    def note_use(self) -> None:
        """Somebody's request is on its way: the model stays, as long as it does when nobody asks."""
        self._unloading.note_use()

    async def wait_while_loading(self, timeout_s: float) -> None:
        """Hold a request while replicas load, for so long at most. Raises Overloaded or NotReady."""
        await self._admission.wait_while_loading(timeout_s)
        self.note_use()

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        """The images of a request, or those of an identical one. Raises Overloaded, NotReady, or whatever ended it."""
        if (kept := self._results.find(request)) is not None:
            note("an identical request was answered before")
            return kept
        async with aclosing(self.stream(replace(request, tells_steps=False))) as events:
            async for event in events:
                if isinstance(event, Completed):
                    self._results.keep(request, event.result)
                    return event.result
                if isinstance(event, Failed):
                    raise event.error
        raise AssertionError("a stream ended without Completed or Failed")

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of a request, up to Completed or Failed; use it in `aclosing`, so that leaving it cancels.

        Raises Overloaded or NotReady at once, before there is a stream. If a replica is lost, the request is run again
        on another one, and the steps of its images count from one again.
        """
        self.check()
        self.note_use()
        events, span = self._stream(request), current_span()
        return events if span is None else traced(span, events, request, self.spec)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            queued=self._admission.num_queued,
            running=self._admission.num_running,
            replicas=tuple(self._snapshot_of(replica) for replica in self._replicas.members),
            counters=self._replicas.counters,
        )

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        arrived_at = asyncio.get_running_loop().time()
        self._num_in_flight += 1
        try:
            yield Queued()
            is_rerun = False
            while True:
                async with aclosing(self._attempt(request, arrived_at, is_rerun=is_rerun)) as events:
                    async for event in events:
                        if self._can_run_again(event, is_rerun=is_rerun):
                            note(f"not answered ({type(event.error).__name__}): the request runs again")
                            break
                        yield event
                    else:
                        return
                is_rerun = True
        finally:
            self._num_in_flight -= 1
            self.note_use()
            self._changed.set()

    async def _attempt(
        self, request: GenerationRequest, arrived_at: float, *, is_rerun: bool
    ) -> AsyncGenerator[Event, None]:
        """Run a request on one replica: wait for a place, then pass its events on until the deadline."""
        loop = asyncio.get_running_loop()
        deadline = arrived_at + request.timeout_s
        replica: Replica | None = None
        started_at = arrived_at
        try:
            line = self._admission.line_up(is_rerun=is_rerun, tells_position=request.is_streamed)
            async with aclosing(line):
                while replica is None:
                    each = await _next(line, deadline)
                    assert each is not None  # it ends with a replica
                    if isinstance(each, int):
                        yield Queued(each)
                    else:
                        replica = each
            started_at = loop.time()
            async with aclosing(replica.stream(request, age_s=started_at - arrived_at)) as events:
                while (event := await _next(events, deadline)) is not None:
                    if isinstance(event, Completed):
                        self._admission.observe(replica, loop.time() - started_at, _work_of(request))
                    yield event
        except TimeoutError:
            if replica is not None:
                self._admission.observe(replica, loop.time() - started_at, _work_of(request))
            where = "waited for a replica" if replica is None else "was worked on"
            yield Failed(
                DeadlineExceeded(f"the request {where} when its timeout of {request.timeout_s:g} s had passed")
            )
        except SafelightError as error:
            yield Failed(error)
        finally:
            if replica is not None:
                self._admission.release(replica)

    def _can_run_again(self, event: Event, *, is_rerun: bool) -> TypeGuard[Failed]:
        """Whether a request that lost its replica finds another one; or its place, and may wait for the next."""
        if not isinstance(event, Failed):
            return False
        if isinstance(event.error, ReplicaFull):
            return self._admission.has_room
        return isinstance(event.error, ReplicaLost) and not is_rerun and self._has_ready_replica

    @property
    def _has_ready_replica(self) -> bool:
        return any(replica.state is ReplicaState.READY for replica in self._replicas.members)

    @property
    def _is_idle(self) -> bool:
        return self._has_ready_replica and not self._num_in_flight and not self._admission.num_queued

    def _refuse_new(self) -> None:
        self._is_draining = True
        self._admission.close(NotReady("the server is shutting down", retry_after_s=SHUTDOWN_RETRY_AFTER_S))
        self._on_change()

    def _on_change(self) -> None:
        self._unloading.note_change(is_ready=self._has_ready_replica)
        self._admission.wake()
        self._changed.set()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _snapshot_of(self, replica: Replica) -> ReplicaSnapshot:
        return ReplicaSnapshot(
            name=replica.name,
            state=self._shown_state(replica),
            detail=replica.error.message if replica.error else self._slowness_of(replica),
            whereabouts=replica.whereabouts,
            restarts=replica.restarts,
            plan=replica.plan,
        )

    def _slowness_of(self, replica: Replica) -> str:
        times = self._admission.slowness(replica)
        return f"slow: takes {times:.1f} times as long as the quickest replica" if times > 1 else ""

    def _shown_state(self, replica: Replica) -> ReplicaState:
        if self._is_draining and replica.state is ReplicaState.READY:
            return ReplicaState.DRAINING
        return ReplicaState.UNLOADED if self._unloading.is_unloaded and not self._is_draining else replica.state


def _work_of(request: GenerationRequest) -> float:
    """Pixels that are denoised."""
    return request.num_images_per_prompt * request.num_inference_steps * request.width * request.height


async def _next(events: AsyncGenerator[T, None], deadline: float) -> T | None:
    """None if there are no more. Raises TimeoutError at the deadline.

    A timeout around the whole loop would run, and cancel, while the reader holds the last event.
    """
    async with asyncio.timeout_at(deadline):
        return await anext(events, None)
