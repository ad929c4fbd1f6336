from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from safelight.control.endpoints.logs import DeploymentLogs
from safelight.control.jobs import queue as job_queue
from safelight.control.jobs.queue import JobQueue, LiveJob, Run, fair_order
from safelight.control.jobs.records import (
    Answer,
    BegunJob,
    JobLimits,
    NewJob,
    StoredRequest,
    add_job,
    cancel_job,
    find_job,
    get_answer,
    get_job,
)
from safelight.control.plane import ControlPlane
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database
from safelight.control.store.gateways import News, Role, Standing
from safelight.control.store.tables import Job, JobState, utc_now
from safelight.errors import (
    Conflict,
    IdempotencyKeyReused,
    NotReady,
    Overloaded,
    ReplicaLost,
    ResourceNotFound,
    SafelightError,
)
from tests.fakes import DEADLINE_S, until

LIMITS = JobLimits(max_jobs=3, max_bytes=1000, lifetime_s=3600)
PICTURE = Answer(status=200, headers=(("content-type", "image/png"),), body=b"picture")


def request(body: bytes = b"{}", content_type: str = "application/json") -> StoredRequest:
    headers = (("content-type", content_type), ("host", "s"))
    return StoredRequest(endpoint_name=None, server="http://s", path="/", query="", headers=headers, body=body)


def new_job(owner: str = "ann", key: str | None = None, body: bytes = b"{}") -> NewJob:
    return NewJob(owner=owner, request=request(body), idempotency_key=key)


@dataclass
class Performer:
    """Answers when it is told to."""

    answer: Answer = PICTURE
    begun: list[BegunJob] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: list[SafelightError] = field(default_factory=list)

    async def __call__(self, job: BegunJob, run: Run) -> Answer:
        self.begun.append(job)
        if self.refusals:
            run.error = self.refusals.pop()
            return Answer(status=503, headers=(), body=b"")
        waits = {asyncio.create_task(self.go_on.wait()), asyncio.create_task(run.left.wait())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in pending:
            each.cancel()
        return Answer(status=499, headers=(), body=b"") if run.left.is_set() else self.answer


@pytest.fixture
def plane(tmp_path: Path, database: Database, cipher: Cipher) -> ControlPlane:
    async def publish(_: str) -> None:
        pass

    return ControlPlane(
        database=database,
        cipher=cipher,
        logs=DeploymentLogs(tmp_path),
        admin_token="",
        wake=lambda: None,
        publish=publish,
        replicas_of=lambda *_: [],
        rotate_encryption_key=lambda: 0,
    )


@asynccontextmanager
async def running_queue(
    plane: ControlPlane, performer: Performer, *, max_running: int = 1, standing: Standing | None = None
) -> AsyncIterator[JobQueue]:
    queue = JobQueue(plane, performer, limits=LIMITS, max_running=max_running, standing=standing)
    await queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


def state_of(plane: ControlPlane, id: str) -> JobState:
    with plane.database.transaction() as session:
        return get_job(session, id, "ann").state


def is_state(plane: ControlPlane, id: str, state: JobState) -> Callable[[], bool]:
    return lambda: state_of(plane, id) is state


def test_owners_take_turns_and_what_runs_counts_as_had() -> None:
    waiting = [LiveJob(name, name[0]) for name in ("a1", "a2", "a3", "b1", "c1", "b2")]

    def order(num_running: dict[str, int], last_turns: dict[str, int]) -> str:
        return " ".join(job.id for job in fair_order(waiting, num_running, last_turns))

    assert order({}, {}) == "a1 b1 c1 a2 b2 a3"
    assert order({"a": 1, "b": 2}, {}) == "c1 a1 a2 b1 a3 b2"
    assert order({}, {"a": 2, "b": 1}) == "c1 b1 a1 b2 a2 a3"


def test_jobs_run_one_after_the_other_in_the_order_that_was_told(plane: ControlPlane) -> None:
    async def run() -> None:
        performer = Performer()
        async with running_queue(plane, performer) as queue:
            first, _ = await queue.submit(new_job())
            await until(lambda: len(performer.begun) == 1)
            second, _ = await queue.submit(new_job())
            third, _ = await queue.submit(new_job("bob"))
            positions = [queue.position_of(job.id) for job in (first, second, third)]
            performer.go_on.set()
            await queue.wait(second.id, 60)

        assert positions == [None, 2, 1]
        assert [job.id for job in performer.begun] == [first.id, third.id, second.id]

    asyncio.run(run())


def test_a_job_that_the_server_cannot_work_on_yet_waits_and_is_tried_again(plane: ControlPlane) -> None:
    async def run() -> int:
        performer = Performer(refusals=[NotReady("loading", retry_after_s=0)] * 2)
        performer.go_on.set()
        async with running_queue(plane, performer) as queue:
            job, _ = await queue.submit(new_job())
            await queue.wait(job.id, 60)
            assert state_of(plane, job.id) is JobState.SUCCEEDED
        return len(performer.begun)

    assert asyncio.run(run()) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_what_was_refused_before_its_work_began_is_tried_again(status: int) -> None:
    assert Run().is_refused(Answer(status=status, headers=(), body=b""))
    assert not Run(is_valid=True).is_refused(Answer(status=status, headers=(), body=b""))
    assert not Run().is_refused(Answer(status=400, headers=(), body=b""))


def test_a_job_that_lost_its_replica_runs_again_and_is_counted_as_lost(plane: ControlPlane) -> None:
    async def run() -> list[int]:
        performer = Performer(refusals=[ReplicaLost("replica 0 ended by SIGKILL")] * 2)
        performer.go_on.set()
        async with running_queue(plane, performer) as queue:
            job, _ = await queue.submit(new_job())
            await queue.wait(job.id, 60)
            assert state_of(plane, job.id) is JobState.SUCCEEDED
        return [job.num_lost for job in performer.begun]

    assert asyncio.run(run()) == [0, 1, 2]


@dataclass
class FullDisk:
    """A database that takes nothing for the first times that an answer is to be kept."""

    database: Database
    performer: Performer
    num_failures: int = 2

    async def run(self, work: Callable[..., object], *args: object) -> object:
        return await self.database.run(work, *args)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        if self.performer.begun and self.num_failures:
            self.num_failures -= 1
            raise OperationalError("UPDATE jobs", None, Exception("database or disk is full"))
        with self.database.transaction() as session:
            yield session


def test_an_answer_that_cannot_be_kept_yet_is_not_made_again(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_queue, "RETRY_S", 0.01)

    async def run() -> int:
        performer = Performer()
        performer.go_on.set()
        full = replace(plane, database=FullDisk(plane.database, performer))  # type: ignore[arg-type]
        async with running_queue(full, performer) as queue:
            job, _ = await queue.submit(new_job())
            await queue.wait(job.id, 60)
            assert state_of(plane, job.id) is JobState.SUCCEEDED
        return len(performer.begun)

    assert asyncio.run(run()) == 1


def among_others() -> Standing:
    return Standing(1, Role.FOLLOWER, frozenset({1, 2}))


def test_a_job_that_the_database_kept_or_moved_here_after_that_was_given_up_waiting_for_is_worked_on(
    plane: ControlPlane,
) -> None:
    """Its client was refused; sent again under its key it is found, and would be waited for for ever."""

    async def run() -> None:
        performer = Performer()
        performer.go_on.set()
        async with running_queue(plane, performer, standing=among_others()) as queue:
            with plane.database.transaction() as session:
                add_job(session, plane.cipher, new_job(key="k"), LIMITS, gateway_id=1)
            job, is_new = await queue.submit(new_job(key="k"))
            assert not is_new
            queue.note(News())
            await until(is_state(plane, job.id, JobState.SUCCEEDED))
        assert len(performer.begun) == 1

    asyncio.run(run())


def test_a_gateway_that_is_older_than_the_database_leaves_the_jobs_of_dead_ones_to_newer_ones(
    plane: ControlPlane,
) -> None:
    """It may not have the route, or the parameter, that a job asks for, and would end it with an error."""

    async def run() -> list[BegunJob]:
        performer, standing = Performer(), replace(among_others(), is_outdated=True)
        performer.go_on.set()
        with plane.database.transaction() as session:
            add_job(session, plane.cipher, new_job("bob"), LIMITS, gateway_id=3)
        async with running_queue(plane, performer, standing=standing) as queue:
            own, _ = await queue.submit(new_job())
            queue.note(News())
            await until(is_state(plane, own.id, JobState.SUCCEEDED))
            standing.is_outdated = False
            assert len(performer.begun) == 1
            queue.note(News())
            await until(lambda: len(performer.begun) == 2)
        return performer.begun

    assert asyncio.run(run())


def test_a_job_that_waits_here_and_is_canceled_at_another_gateway_waits_no_more(plane: ControlPlane) -> None:
    async def run() -> None:
        async with running_queue(plane, Performer(), standing=among_others()) as queue:
            await queue.submit(new_job())
            waiting, _ = await queue.submit(new_job())
            with plane.database.transaction() as session:
                cancel_job(session, waiting.id, "ann", LIMITS)
            queue.note(News({waiting.id: JobState.CANCELED}))

            async with asyncio.timeout(DEADLINE_S):
                await queue.wait(waiting.id, 10 * DEADLINE_S)
            assert queue.count()[JobState.QUEUED] == 0

    asyncio.run(run())


def test_what_runs_when_the_server_stops_runs_again_after_the_next_start(plane: ControlPlane) -> None:
    async def run() -> list[int]:
        performer = Performer()
        async with running_queue(plane, performer) as queue:
            running, _ = await queue.submit(new_job())
            await queue.submit(new_job())
            await until(lambda: len(performer.begun) == 1)
        assert state_of(plane, running.id) is JobState.QUEUED
        performer.go_on.set()
        async with running_queue(plane, performer):
            await until(is_state(plane, running.id, JobState.SUCCEEDED))
            await until(lambda: len(performer.begun) == 3)
        return [job.num_lost for job in performer.begun]

    assert asyncio.run(run()) == [0, 0, 0]


def test_a_job_that_ran_when_the_server_was_killed_is_counted_as_lost(plane: ControlPlane) -> None:
    async def run() -> BegunJob:
        performer = Performer()
        performer.go_on.set()
        with plane.database.transaction() as session:
            job, _ = add_job(session, plane.cipher, new_job(body=b"the body"), LIMITS)
            job.state = JobState.RUNNING
        async with running_queue(plane, performer):
            await until(is_state(plane, job.id, JobState.SUCCEEDED))
        return performer.begun[0]

    begun = asyncio.run(run())

    assert begun.num_lost == 1
    assert begun.request == request(b"the body")


def test_a_canceled_job_ends_at_once_and_keeps_no_answer(plane: ControlPlane) -> None:
    async def run() -> str:
        performer = Performer()
        async with running_queue(plane, performer) as queue:
            job, _ = await queue.submit(new_job())
            await until(lambda: len(performer.begun) == 1)
            with pytest.raises(ResourceNotFound):
                await queue.cancel(job.id, "bob")
            canceled = await queue.cancel(job.id, "ann")
            assert canceled is not None
            await queue.wait(job.id, 60)
            assert queue.count()[JobState.RUNNING] == 0
        return job.id

    job_id = asyncio.run(run())

    with plane.database.transaction() as session, pytest.raises(Conflict, match="was canceled"):
        get_answer(session, job_id, "ann")


def test_when_a_job_has_ended_its_body_is_gone_and_the_answer_is_there(plane: ControlPlane) -> None:
    async def run() -> str:
        performer = Performer()
        performer.go_on.set()
        async with running_queue(plane, performer) as queue:
            job, _ = await queue.submit(new_job(body=b"the body"))
            await queue.wait(job.id, 60)
        return job.id

    job_id = asyncio.run(run())

    with plane.database.transaction() as session:
        job = get_job(session, job_id, "ann")
        assert (job.body, job.num_bytes) == (None, len(PICTURE.body))
        assert get_answer(session, job_id, "ann") == PICTURE


def test_an_idempotency_key_is_one_job_of_one_owner(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        job, is_new = add_job(session, cipher, new_job(key="k"), LIMITS)
        again, is_new_again = add_job(session, cipher, new_job(key="k"), LIMITS)
        other, is_others_new = add_job(session, cipher, new_job("bob", key="k"), LIMITS)

        assert (is_new, is_new_again, is_others_new) == (True, False, True)
        assert again.id == job.id != other.id
        with pytest.raises(IdempotencyKeyReused):
            find_job(session, new_job(key="k", body=b"[]"))


def test_the_limits_are_an_owners_own(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        for _ in range(LIMITS.max_jobs):
            add_job(session, cipher, new_job(), LIMITS)
        with pytest.raises(Overloaded, match="3 jobs"):
            add_job(session, cipher, new_job(), LIMITS)
        add_job(session, cipher, new_job("bob", body=b"x" * 999), LIMITS)
        with pytest.raises(Overloaded, match="999 bytes"):
            add_job(session, cipher, new_job("bob"), LIMITS)


def test_what_has_expired_is_gone_with_its_key(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        job, _ = add_job(session, cipher, new_job(key="k"), LIMITS)
        session.execute(update(Job).where(Job.id == job.id).values(expires_at=utc_now()))

        with pytest.raises(ResourceNotFound):
            get_job(session, job.id, "ann")
        assert add_job(session, cipher, new_job(key="k", body=b"[]"), LIMITS)[1]


@pytest.mark.parametrize(
    "form", ["multipart/form-data; boundary={}", 'multipart/form-data; boundary="{}"; charset=utf-8']
)
def test_a_forms_boundary_makes_no_other_request(form: str) -> None:
    one, two = (
        request(f"--{boundary}\r\nfox\r\n--{boundary}--".encode(), form.format(boundary)) for boundary in ("abc", "xyz")
    )

    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != request(one.body, "multipart/form-data; boundary=other").fingerprint
