"""Who may run now, who waits, and who is told to come back: the door of the dispatcher.

A replica has a bounded number of places; a bounded number waits, first come, first served; one more is refused at
once. A place goes to the ready replica that will be done first: the least loaded one, unless it is slow. While replicas
load, requests are held for a while, as many as may wait.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress

from safelight.errors import NotReady, Overloaded, SafelightError
from safelight.serving.backends.protocol import Replica, ReplicaState
from safelight.serving.paces import Paces
from safelight.serving.unloading import Unloading

NOT_READY_RETRY_AFTER_S = 5
MAX_RETRY_AFTER_S = 600
LOOK_AGAIN_S = 0.5
"""How often one in line looks whether it has moved: a line that moves fast is not told turn by turn."""
_SMOOTHING = 0.2
"""Weight of the newest request in the moving average of how long one takes."""


class Admission:
    """Counts places in replicas, and keeps the queue. All of it runs in the event loop's thread.

    `replicas` says which there are now: some backends start and end them as they are needed.
    """

    def __init__(
        self,
        replicas: Callable[[], Sequence[Replica]],
        *,
        max_queued_requests: int,
        max_queue_wait_s: float | None = None,
        hold_while_loading_s: float = 0.0,
        unloading: Unloading | None = None,
    ) -> None:
        self._replicas = replicas
        self._unloading = unloading
        self._max_queued_requests = max_queued_requests
        self._max_queue_wait_s = max_queue_wait_s
        self._running: Counter[Replica] = Counter()
        self._hold_while_loading_s = hold_while_loading_s
        self._waiting: deque[asyncio.Future[Replica]] = deque()
        self._held: dict[asyncio.Future[None], None] = {}
        """In the order in which they came."""
        self._service_s: float | None = None
        self._paces = Paces(replicas)
        self._closed_by: SafelightError | None = None

    @property
    def num_queued(self) -> int:
        return len(self._waiting) + len(self._held)

    @property
    def num_running(self) -> int:
        return self._running.total()

    @property
    def has_room(self) -> bool:
        """Whether one more may run, or wait."""
        return not self._must_queue() or self.num_queued < self._max_queued_requests

    def check(self) -> None:
        """Raises NotReady or Overloaded if a request that comes now is refused."""
        if self._closed_by is not None:
            raise self._closed_by
        if not self._has_ready:
            self._bring_back(comes_again_s=2 * NOT_READY_RETRY_AFTER_S)
            raise NotReady(self._why_not_ready(), retry_after_s=NOT_READY_RETRY_AFTER_S)
        if self._must_queue():
            self._check_queue()

    def check_at_door(self) -> None:
        """As `check`, before the body of a request is read: one that would be held is let in."""
        if self._is_holding():
            self._check_queue()
        else:
            self.check()

    async def wait_while_loading(self, timeout_s: float) -> None:
        """Hold a request until a replica is ready. Raises NotReady if none is in time, Overloaded if too many wait."""
        if not self._is_holding():
            self.check()
            return
        self._check_queue()
        self._bring_back()
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held[held] = None
        try:
            async with asyncio.timeout(min(self._hold_while_loading_s, timeout_s)):
                await held
        except TimeoutError:
            raise NotReady(self._why_not_ready(), retry_after_s=NOT_READY_RETRY_AFTER_S) from None
        finally:
            self._held.pop(held, None)
        self.check()

    async def acquire(self, *, is_rerun: bool = False) -> Replica:
        """A place in a replica, waiting in line if there is none; `release` gives it back. Raises as `line_up`."""
        async with aclosing(self.line_up(is_rerun=is_rerun)) as line:
            async for each in line:
                if not isinstance(each, int):
                    return each
        raise AssertionError("a line ended without a place")

    async def line_up(
        self, *, is_rerun: bool = False, tells_position: bool = False
    ) -> AsyncGenerator[int | Replica, None]:
        """Where the request is in line, if wanted, whenever that has changed (1: the next); at last its place.

        A rerun was admitted before: it is not refused, and goes to the head of the line. Raises Overloaded if the
        line is full, or if the turn does not come within `max_queue_wait_s`.
        """
        if not is_rerun:
            self.check()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Replica] = loop.create_future()
        (self._waiting.appendleft if is_rerun else self._waiting.append)(waiter)
        give_up_at = math.inf if is_rerun or self._max_queue_wait_s is None else loop.time() + self._max_queue_wait_s
        self.wake()
        told = 0
        try:
            while not waiter.done():
                position = self._waiting.index(waiter) + 1 if tells_position else told
                if position != told:
                    yield (told := position)
                    continue
                if loop.time() >= give_up_at:
                    raise self._waited_too_long()
                await _wait(waiter, min(give_up_at - loop.time(), LOOK_AGAIN_S if tells_position else math.inf))
            replica = waiter.result()
        except BaseException:  # whoever leaves the line, be it by closing it
            self._give_up(waiter)
            raise
        yield replica

    def release(self, replica: Replica) -> None:
        self._running[replica] -= 1
        if not self._running[replica]:
            del self._running[replica]
        self.wake()

    def observe(self, replica: Replica, service_s: float, work: float) -> None:
        """Learn how long a request keeps its place, for an honest Retry-After, and which replicas are slow."""
        self._paces.observe(replica, service_s, work)
        if self._service_s is None:
            self._service_s = service_s
        self._service_s += _SMOOTHING * (service_s - self._service_s)

    def slowness(self, replica: Replica) -> float:
        """How many times as long as the quickest one it takes for the same work, if it is slow; else 1."""
        return self._paces.slowness(replica)

    def wake(self) -> None:
        """Give free places to those who wait; called whenever one may have become free, or a replica has changed."""
        if self._held and not self._is_holding():
            self._let_go()
        while self._waiting and (replica := self._least_loaded()):
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._running[replica] += 1
                waiter.set_result(replica)
        if all(replica.state is ReplicaState.FAILED for replica in self._replicas()):
            self.refuse_waiting(NotReady(self._why_not_ready(), retry_after_s=NOT_READY_RETRY_AFTER_S))

    def close(self, error: SafelightError) -> None:
        """Refuse every new request with this error; those who wait keep their turn."""
        self._closed_by = error

    def refuse_waiting(self, error: SafelightError) -> None:
        """End all that wait with this error."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiting.clear()

    def _let_go(self) -> None:
        for held in self._held:
            if not held.done():
                held.set_result(None)
        self._held.clear()

    def _is_holding(self) -> bool:
        """Whether there is something to wait for."""
        is_held_here = self._hold_while_loading_s > 0 and self._max_queued_requests > 0 and self._closed_by is None
        return (
            is_held_here
            and not self._has_ready
            and (self._is_unloaded or self._has(ReplicaState.STARTING, ReplicaState.LOADING))
        )

    @property
    def _has_ready(self) -> bool:
        return not self._is_unloaded and self._has(ReplicaState.READY)

    @property
    def _is_unloaded(self) -> bool:
        """From the moment that it is decided: replicas that are told so in the next turn are ready until then."""
        return self._unloading is not None and self._unloading.is_unloaded

    def _bring_back(self, *, comes_again_s: float = 0.0) -> None:
        """A model that has left memory: whoever is refused for it finds it when he comes again."""
        if self._unloading is not None:
            self._unloading.bring_back(comes_again_s=comes_again_s)

    def _has(self, *states: ReplicaState) -> bool:
        return any(replica.state in states for replica in self._replicas())

    def _check_queue(self) -> None:
        if self.num_queued >= self._max_queued_requests:
            raise Overloaded(
                f"{self.num_running} requests are running and {self.num_queued} are waiting, which is all that is "
                "admitted; send the request again later",
                retry_after_s=self._retry_after_s(),
            )

    def _give_up(self, waiter: asyncio.Future[Replica]) -> None:
        """The request was cancelled; its place may have been given in the same turn of the event loop."""
        with suppress(ValueError):
            self._waiting.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self.release(waiter.result())

    def _waited_too_long(self) -> Overloaded:
        return Overloaded(
            f"the request waited {self._max_queue_wait_s:g} s for its place, as long as max_queue_wait allows; "
            "send it again later",
            retry_after_s=self._retry_after_s(),
        )

    def _must_queue(self) -> bool:
        return self.num_queued > 0 or self._least_loaded() is None

    def _least_loaded(self) -> Replica | None:
        free = [
            replica
            for replica in self._replicas()
            if self._has_ready and replica.state is ReplicaState.READY and self._running[replica] < replica.num_places
        ]
        return min(free, key=lambda each: (self._running[each] + 1) * self._paces.slowness(each), default=None)

    def _retry_after_s(self) -> int:
        """When what waits now will have been served, at the pace of the last requests."""
        num_places = sum(each.num_places for each in self._replicas() if each.state is ReplicaState.READY)
        seconds = (self._service_s or 1.0) * (self.num_queued + 1) / max(1, num_places)
        return min(max(1, math.ceil(seconds)), MAX_RETRY_AFTER_S)

    def _why_not_ready(self) -> str:
        if self._is_unloaded:
            return "the model had left memory because nobody asked for it, and is being loaded again"
        states = "; ".join(describe(replica) for replica in self._replicas())
        return f"no replica can take the request: {states}"


async def _wait(waiter: asyncio.Future[Replica], seconds: float) -> None:
    """Until it is done, or for so long."""
    await asyncio.wait({waiter}, timeout=None if math.isinf(seconds) else seconds)


def describe(replica: Replica) -> str:
    """What a person should know of a replica's state."""
    if replica.error is None or replica.state is ReplicaState.READY:
        return f"{replica.name} is {replica.state}"
    return f"{replica.name} is {replica.state} ({replica.error.message})"
