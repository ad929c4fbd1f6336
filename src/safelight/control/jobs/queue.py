"""Runs the jobs that are in the database: a few at a time, in turns between their owners, again after a restart.

    submit -> database -> fair_order -> perform(job, run) -> database

It knows nothing of HTTP frameworks: `perform` sends a request through the routes, and `Run` is what the two know of
each other meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from safelight.control.jobs.records import (
    Answer,
    BegunJob,
    JobLimits,
    NewJob,
    add_job,
    begin_job,
    cancel_job,
    finish_job,
    forget_expired_jobs,
    list_gone_jobs,
    list_own_jobs,
    put_back_job,
    recover_jobs,
    take_over_jobs,
)
from safelight.control.plane import ControlPlane
from safelight.control.store.gateways import POLL_S, News, Standing
from safelight.control.store.tables import Job, JobState
from safelight.errors import GenerationCancelled, NotReady, Overloaded, ReplicaLost, SafelightError, StorageUnavailable

logger = logging.getLogger(__name__)

RETRY_S = 1.0
CLEANING_INTERVAL_S = 60.0


@dataclass(slots=True, eq=False)
class Run:
    """One pass of a request through the routes."""

    is_check: bool = False
    """It ends where the work would begin: only to see whether the request is one that can be worked on."""
    is_valid: bool = False
    """Nothing was wrong with the request."""
    error: SafelightError | None = None
    """What ended the work."""
    steps: dict[int, int] = field(default_factory=dict)
    """Of each image, those that are done."""
    num_steps: int = 0
    preview: bytes | None = field(default=None, repr=False)
    """The newest of the first image."""
    preview_media_type: str = ""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Nobody waits for the pictures any more."""

    def is_refused(self, answer: Answer) -> bool:
        """Whether the server could not, or not yet, work on it: then it is tried again later."""
        if self.error is not None:
            return isinstance(
                self.error, NotReady | Overloaded | GenerationCancelled | ReplicaLost | StorageUnavailable
            )
        return answer.status in (429, 503) and not self.is_valid


Perform = Callable[[BegunJob, Run], Awaitable[Answer]]
"""What the client would have been answered with."""


@dataclass(slots=True, eq=False)
class LiveJob:
    """A job that waits or runs."""

    id: str
    owner: str
    run: Run | None = None
    """None while it waits."""
    not_before: float = 0.0
    """On the event loop's clock."""
    refusal: str | None = None
    """What keeps it from being worked on, or its answer from being kept."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """It has ended, or has been refused."""


class JobQueue:
    """Owns the jobs that wait or run, and their tasks."""

    def __init__(
        self,
        plane: ControlPlane,
        perform: Perform,
        *,
        limits: JobLimits,
        max_running: int,
        standing: Standing | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """`standing` of this gateway among several."""
        self._plane = plane
        self._perform = perform
        self.limits = limits
        self._max_running = max_running
        self._standing = standing or Standing()
        self._on_end = on_end
        self._live: dict[str, LiveJob] = {}
        """Oldest first."""
        self._turns = itertools.count(1)
        self._last_turns: dict[str, int] = {}
        """Of each owner that has live jobs."""
        self._num_ended: Counter[JobState] = Counter()
        self._changed = asyncio.Event()
        self._told = asyncio.Event()
        self._elsewhere: dict[str, asyncio.Event] = {}
        """Set when a job that is waited for here has changed at another gateway."""
        self._is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take up what is in the database; over a full disk as soon as it has room."""
        is_recovered = self._standing.id is not None or await self._recover()
        self._tasks = {asyncio.create_task(self._begin_runs(is_recovered)), asyncio.create_task(self._clean_up())}
        if self._standing.id is not None:
            self._tasks.add(asyncio.create_task(self._follow_others(self._standing.id)))

    async def stop(self) -> None:
        """End what runs; the next start takes it up again."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        for job in self._live.values():
            if job.run is not None:
                job.run.left.set()
        await asyncio.gather(*self._tasks, *self._runs, return_exceptions=True)

    async def submit(self, new: NewJob) -> tuple[Job, bool]:
        """As `add_job`; once it returns, the job survives the server."""
        cipher, gateway_id = self._plane.cipher, self._standing.id
        job, is_new = await self._plane.transact(
            lambda session: add_job(session, cipher, new, self.limits, gateway_id=gateway_id)
        )
        if is_new:
            self._adopt(job.id, job.owner)
        return job, is_new

    async def cancel(self, id: str, owner: str) -> Job | None:
        """As `cancel_job`; what runs stops within one step."""
        job = await self._plane.transact(lambda session: cancel_job(session, id, owner, self.limits))
        if job is not None:
            self._num_ended[JobState.CANCELED] += 1
            self._leave(id)
            self._on_end()
        return job

    async def wait(self, id: str, timeout_s: float) -> None:
        """Until the job has ended, or cannot for `refusal_of` it, or time is up. Raises StorageUnavailable."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                if (live := self._live.get(id)) is not None:
                    await live.news.wait()
                elif self._standing.id is not None:
                    await self._wait_elsewhere(id)

    def refusal_of(self, id: str) -> str | None:
        """Why a job does not go on for now; it does as soon as it can."""
        live = self._live.get(id)
        return live.refusal if live is not None else None

    def run_of(self, id: str) -> Run | None:
        """How a job stands that runs."""
        live = self._live.get(id)
        return live.run if live is not None else None

    def position_of(self, id: str) -> int | None:
        """1 is the next; None if the job does not wait."""
        return next((index for index, each in enumerate(self._in_order(), 1) if each.id == id), None)

    def count(self) -> Mapping[JobState, int]:
        """Jobs that wait and run, and those that have ended since the server started."""
        num_running = sum(each.run is not None for each in self._live.values())
        live = {JobState.QUEUED: len(self._live) - num_running, JobState.RUNNING: num_running}
        return {**live, **{state: self._num_ended[state] for state in JobState if state not in live}}

    def note(self, news: News) -> None:
        """What other gateways did to jobs."""
        for job_id in news.jobs.keys() & self._elsewhere.keys():
            self._elsewhere[job_id].set()
        self._told.set()

    async def _wait_elsewhere(self, id: str) -> None:
        """Until a job has ended that another gateway has; it may come here when that one dies."""
        changed = self._elsewhere.setdefault(id, asyncio.Event())
        try:
            while not await self._plane.transact(lambda session: list_gone_jobs(session, [id])):
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await changed.wait()
                changed.clear()
        finally:
            self._elsewhere.pop(id, None)

    async def _follow_others(self, gateway_id: int) -> None:
        """Take over what dead gateways had, and stop what was canceled at another one.

        A database that answers late, or loses its connection while it commits, may have kept a job, or given it to
        this gateway, after this gave up waiting for it: nobody else would ever work on it.
        """
        while True:
            await self._told.wait()
            self._told.clear()
            known = [*self._live]
            try:
                if known:
                    for gone in await self._plane.transact(lambda session: list_gone_jobs(session, known)):  # noqa: B023
                        self._leave(gone)
                for own in await self._plane.transact(lambda session: list_own_jobs(session, gateway_id)):
                    self._adopt(*own)
                if (alive := self._standing.alive) is not None and not self._standing.is_outdated:
                    await self._take_over(gateway_id, alive | {gateway_id})
            except (SQLAlchemyError, StorageUnavailable):
                continue  # the log has it; the database's own news come when it is back

    async def _take_over(self, gateway_id: int, alive: frozenset[int]) -> None:
        """A few each second, so that all who live get some."""
        jobs = await self._plane.transact(
            lambda session: take_over_jobs(session, gateway_id, alive, limit=self._max_running)
        )
        for job in jobs:
            logger.info("job %s is taken over: its gateway is dead", job.id)
            self._adopt(job.id, job.owner)

    def _adopt(self, id: str, owner: str) -> None:
        if id not in self._live:
            self._live[id] = LiveJob(id, owner)
            self._changed.set()

    def _leave(self, id: str) -> None:
        live = self._live.get(id)
        if live is not None and live.run is not None:
            live.run.left.set()
        elif live is not None:
            self._forget(live)

    async def _recover(self) -> bool:
        try:
            jobs = await self._plane.transact(recover_jobs)
        except StorageUnavailable:
            return False
        for job in jobs:
            self._live.setdefault(job.id, LiveJob(job.id, job.owner))
        return True

    async def _begin_runs(self, is_recovered: bool) -> None:
        while not is_recovered:
            await asyncio.sleep(RETRY_S)
            is_recovered = await self._recover()
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            order = self._in_order()
            ready = [each for each in order if each.not_before <= loop.time()]
            for live in ready[: self._max_running - len(self._runs)]:
                live.run = Run()
                self._last_turns[live.owner] = next(self._turns)
                task = asyncio.create_task(self._run(live, live.run), name=f"job {live.id}")
                self._runs.add(task)
                task.add_done_callback(self._end_run)
            delays = [each.not_before for each in order if each.run is None and each.not_before > loop.time()]
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(delays, default=None)):
                    await self._changed.wait()

    def _end_run(self, task: asyncio.Task[None]) -> None:
        self._runs.discard(task)
        self._changed.set()

    async def _run(self, live: LiveJob, run: Run) -> None:
        """From its row to its answer; a job that could not be worked on waits again."""
        try:
            gateway_id = self._standing.id
            begun = await self._plane.transact(lambda session: begin_job(session, live.id, gateway_id=gateway_id))
            if begun is None:
                self._forget(live)
                return
            live.refusal = None
            live.news.clear()
            answer = await self._perform(begun, run)
            if self._is_stopping or run.is_refused(answer):
                is_lost = isinstance(run.error, ReplicaLost) and not self._is_stopping
                await self._plane.transact(
                    lambda session: put_back_job(session, live.id, is_lost=is_lost, gateway_id=gateway_id)
                )
                self._wait_again(live, getattr(run.error, "retry_after_s", RETRY_S))
                return
        except (SQLAlchemyError, StorageUnavailable) as error:
            self._note(live, error)
            self._wait_again(live, RETRY_S)
            return
        await self._finish(live, answer)

    async def _finish(self, live: LiveJob, answer: Answer) -> None:
        """Keep the answer, however often it takes: the work is not done twice because a disk is full."""
        while True:
            try:
                state = await self._plane.transact(
                    lambda session: finish_job(session, live.id, answer, self.limits, gateway_id=self._standing.id)
                )
                break
            except (SQLAlchemyError, StorageUnavailable) as error:
                if self._is_stopping:
                    return
                self._note(live, error)
                await asyncio.sleep(RETRY_S)
        if state is not None:
            self._num_ended[state] += 1
        self._forget(live)
        self._on_end()

    def _note(self, live: LiveJob, error: SQLAlchemyError | StorageUnavailable) -> None:
        """The database did not take how a job stands. That a disk is full is in the log already."""
        if isinstance(error, StorageUnavailable):
            live.refusal = error.message
            live.news.set()
        else:
            logger.error("job %s: the database cannot be used; trying again in %g s: %s", live.id, RETRY_S, error)

    def _wait_again(self, live: LiveJob, seconds: float) -> None:
        live.run = None
        live.not_before = asyncio.get_running_loop().time() + seconds

    def _forget(self, live: LiveJob) -> None:
        self._live.pop(live.id, None)
        if all(each.owner != live.owner for each in self._live.values()):
            self._last_turns.pop(live.owner, None)
        live.news.set()

    def _in_order(self) -> list[LiveJob]:
        running = Counter(each.owner for each in self._live.values() if each.run is not None)
        return fair_order([each for each in self._live.values() if each.run is None], running, self._last_turns)

    async def _clean_up(self) -> None:
        while True:
            try:
                with suppress(StorageUnavailable):  # the log has it
                    await self._plane.transact(forget_expired_jobs)
            except SQLAlchemyError as error:
                logger.warning("jobs that have expired cannot be removed: %s", error)
            await asyncio.sleep(CLEANING_INTERVAL_S)


def fair_order(
    waiting: Collection[LiveJob], num_running: Mapping[str, int], last_turns: Mapping[str, int]
) -> list[LiveJob]:
    """Whose turn it is: first a job of every owner, then a second one of every owner; what runs counts as had.

    Among equals it is the turn of the owner whose last one is longest ago, then of the oldest job.
    """
    turns = Counter(num_running)
    ranked = []
    for index, job in enumerate(waiting):
        ranked.append(((turns[job.owner], last_turns.get(job.owner, 0), index), job))
        turns[job.owner] += 1
    return [job for _, job in sorted(ranked, key=lambda each: each[0])]
