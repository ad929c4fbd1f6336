"""Load on one server: clients that wait for their picture (closed loop), or requests that come when they come (open).

In an open loop a request is counted from the moment at which it was to be sent: a server that stalls delays all who
would have come meanwhile, and a client that waited for it would not tell (coordinated omission).
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from safelight.cli.bench.connections import Answer, Connections, NoAnswer
from safelight.cli.bench.mix import Picture, Shape
from safelight.cli.bench.target import Target, problem

MAX_WAITING = 900
"""Requests in flight at once: each has a descriptor, of which most systems give 1,024."""
PAUSE_S = 0.1
"""Before a client asks again that got no answer, or was refused and not told when to come back."""
MAX_RETRY_AFTER_S = 3_600.0
REFUSALS = ("429", "503")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much, and for how long."""

    clients: int = 1
    """Closed loop; without meaning where there is a `rate`."""
    rate: float | None = None
    """Requests a second, Poisson: an open loop."""
    duration_s: float = 30.0
    requests: int | None = None
    """So many instead of a duration."""
    warm_up_s: float = 3.0
    timeout_s: float = 120.0
    honours_retry_after: bool = True
    """A client that is told when to come back waits so long, or for its timeout. In an open loop nobody waits."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of one request."""

    shape: Shape
    due_at: float
    """When it was to be sent, in seconds of `time.perf_counter`."""
    sent_at: float
    done_at: float
    error: str | None
    """What went wrong: a status or a word for it."""
    message: str = ""
    retry_after_s: float | None = None

    @property
    def latency_s(self) -> float:
        return self.done_at - self.due_at


@dataclass(slots=True)
class Run:
    """All that was asked of a server, and when it counts."""

    target: Target
    load: Load
    counts_from: float = 0.0
    counts_to: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    num_made: int = 0
    num_failed: int = 0
    """Both as far as they have ended since it counts."""
    num_unfinished: int = 0
    """Counted requests that were cut off when the run was stopped by hand."""
    cpu_share: float = 0.0
    """Of one core, for this process: near 1 the figures are those of the load, not of the server."""
    is_stopped: bool = False

    @property
    def seconds(self) -> float:
        return max(0.0, self.counts_to - self.counts_from)  # it may be stopped before it counts

    @property
    def counted(self) -> list[Sample]:
        """Those that were due when it counted."""
        return [each for each in self.samples if self.counts_from <= each.due_at < self.counts_to]


async def run_load(
    target: Target, load: Load, asked: Iterator[Picture], run: Run, stop: asyncio.Event, *, seed: int = 0
) -> None:
    """Put load on a server until its time is over and all that counts is answered, or until `stop` is set.

    In an open loop the moments are the same for the same seed. What comes of it is in `run` from the first moment on.
    """
    connections = Connections(target, load.timeout_s)
    driver = _Driver(connections, load, asked, run)
    meter = asyncio.create_task(_meter(run))
    driving = asyncio.create_task(driver.closed() if load.rate is None else driver.open(load.rate, seed))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((driving, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not driving.done():
            driver.cut_off()
        for task in (driving, stopping, meter):
            task.cancel()
        await asyncio.gather(driving, stopping, meter, return_exceptions=True)
        connections.close()
    if not driving.cancelled() and (error := driving.exception()):
        raise error


async def ask(connections: Connections, target: Target, picture: Picture, due_at: float) -> Sample:
    """One picture, whatever comes of it."""
    sent_at = time.perf_counter()
    try:
        answer = await connections.post(target.body(picture))
    except NoAnswer as error:
        return Sample(picture.shape, due_at, sent_at, time.perf_counter(), error.kind, target.told(error.message))
    done_at = time.perf_counter()
    message = _elsewhere(target, answer) or problem(target, answer.status, answer.content)
    if message is None:
        return Sample(picture.shape, due_at, sent_at, done_at, None)
    kind = str(answer.status) if answer.status != HTTPStatus.OK else "no picture"
    told_s = _retry_after(answer) if kind in REFUSALS else None
    return Sample(picture.shape, due_at, sent_at, done_at, kind, message, told_s)


class _Driver:
    def __init__(self, connections: Connections, load: Load, asked: Iterator[Picture], run: Run) -> None:
        self._connections = connections
        self._load = load
        self._asked = asked
        self._run = run
        self._left = math.inf if load.requests is None else load.requests
        self._in_flight: dict[int, float] = {}
        self._is_over = asyncio.Event()
        run.counts_from = time.perf_counter() + load.warm_up_s
        run.counts_to = math.inf if load.requests is not None else run.counts_from + load.duration_s

    async def closed(self) -> None:
        """Clients that ask again when they were answered."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(self._load.clients):
                clients.create_task(self._client())
        self._end()

    async def open(self, rate: float, seed: int) -> None:
        """Requests that arrive at `rate` a second, each at a moment of its own."""
        draw, at = random.Random(f"moments {seed}"), time.perf_counter()
        async with asyncio.TaskGroup() as requests:
            while self._is_due(at := at + draw.expovariate(rate)):
                await asyncio.sleep(at - time.perf_counter())
                if len(self._in_flight) < MAX_WAITING:
                    requests.create_task(self._ask(at))
                else:
                    self._note_not_sent(at)
        self._end()

    def cut_off(self) -> None:
        """What is counted ends now."""
        run, now = self._run, time.perf_counter()
        run.is_stopped, run.counts_to = True, min(run.counts_to, now)
        run.num_unfinished = sum(run.counts_from <= due_at < now for due_at in self._in_flight.values())

    async def _client(self) -> None:
        while self._is_due(now := time.perf_counter()):
            pause_s = self._pause_s(await self._ask(now))
            await self._rest(min(pause_s, self._run.counts_to - time.perf_counter()))

    async def _rest(self, seconds: float) -> None:
        """No longer than there is something left to ask for."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()

    def _is_due(self, at: float) -> bool:
        """Whether a request may be sent then; it takes its place among those that are to be counted."""
        if at < self._run.counts_from:
            return True
        self._left -= 1
        if self._left <= 0:
            self._is_over.set()
        return self._left >= 0 and at < self._run.counts_to

    async def _ask(self, due_at: float) -> Sample:
        key = id(asyncio.current_task())
        self._in_flight[key] = due_at
        try:
            sample = await ask(self._connections, self._run.target, next(self._asked), due_at)
        finally:
            del self._in_flight[key]
        self._note(sample)
        return sample

    def _note(self, sample: Sample) -> None:
        self._run.samples.append(sample)
        if sample.done_at >= self._run.counts_from:
            self._run.num_made += sample.error is None
            self._run.num_failed += sample.error is not None

    def _note_not_sent(self, due_at: float) -> None:
        message, now = f"{MAX_WAITING} requests waited for their answers already", time.perf_counter()
        self._note(Sample(next(self._asked).shape, due_at, now, now, "not sent", message))

    def _pause_s(self, sample: Sample) -> float:
        if sample.error is None:
            return 0.0
        if sample.error not in REFUSALS:
            return PAUSE_S
        if not self._load.honours_retry_after:
            return 0.0
        return PAUSE_S if sample.retry_after_s is None else min(sample.retry_after_s, self._load.timeout_s)

    def _end(self) -> None:
        if self._load.requests is not None:
            self._run.counts_to = max(each.done_at for each in self._run.samples)


async def _meter(run: Run) -> None:
    """Keeps the share of a core that this process takes while it counts, and not while it waits for the last."""
    await asyncio.sleep(max(0.0, run.counts_from - time.perf_counter()))
    cpu_s, began_at = time.process_time(), time.perf_counter()
    try:
        await asyncio.sleep(run.counts_to - began_at)
    finally:
        seconds = time.perf_counter() - began_at
        run.cpu_share = (time.process_time() - cpu_s) / seconds if seconds > 0 else 0.0


def _elsewhere(target: Target, answer: Answer) -> str | None:
    """Where an answer redirects to, without what may be a secret."""
    location = answer.headers.get("location")
    if not location or not 300 <= answer.status < 400:
        return None
    shown = target.told(re.split("[?#]", location)[0])[:200]
    return f"not followed to {shown}; give that URL if it is the server's"


def _retry_after(answer: Answer) -> float | None:
    """Seconds, from seconds or a date of its clock (RFC 9110, section 10.2.3); None if it says neither."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    try:
        said_at = answer.headers.get("date")
        now = datetime.now(UTC) if said_at is None else parsedate_to_datetime(said_at)
        left_s = (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(left_s, 0.0), MAX_RETRY_AFTER_S)
