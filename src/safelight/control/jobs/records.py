"""Jobs in the database: requests that outlive their connection, kept with their answers for a time.

    queued -> running -> succeeded | failed      any of the first two -> canceled

A job is its owner's: whoever comes with another key is told that there is none. Its body is dropped when it has ended,
all of it when it has expired. Of several gateways it is the one's that took it, until that one is dead.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import lock
from safelight.control.store.tables import Job, JobState, utc_now
from safelight.errors import Conflict, IdempotencyKeyReused, Overloaded, ResourceNotFound

LIVE = (JobState.QUEUED, JobState.RUNNING)
MAX_LISTED = 100
"""The newest of one key's jobs that a listing has."""

FINGERPRINTED_HEADERS = ("accept", "content-type", "azureml-model-deployment")
FULL_RETRY_AFTER_S = 60
MAX_BOUNDARIES = 100
"""More parts no form has that is read."""

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRequest:
    """A request as it came, but for its credentials: enough to send it through the routes again."""

    endpoint_name: str | None
    """None: the server's own model."""
    server: str
    """What links to this server begin with, as far as it was known when the request came; empty if it was not."""
    path: str
    """Behind the endpoint's name."""
    query: str
    headers: Headers
    body: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The same for the same request; a form's boundary is drawn anew each time that it is sent."""
        headers = {name: value for name, value in self.headers if name in FINGERPRINTED_HEADERS}
        body = self.body
        _, _, boundary = headers.get("content-type", "").partition("boundary=")
        boundary = boundary.partition(";")[0].strip('" ')
        if boundary:
            headers["content-type"] = headers["content-type"].replace(boundary, "")
            body = body.replace(boundary.encode("latin-1"), b"", MAX_BOUNDARIES)
        told = repr((self.path, self.query, sorted(headers.items()))).encode()
        return hashlib.sha256(told + b"\0" + body).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client was, or would have been, answered with."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be."""

    owner: str
    request: StoredRequest
    idempotency_key: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    """It may hold a secret, and is encrypted where it is written: a rotation between the two would lose it."""


@dataclass(frozen=True, slots=True)
class BegunJob:
    """A job that runs."""

    id: str
    request: StoredRequest
    num_lost: int
    """How often the server or its replica ended while it ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """Of what is kept for one owner."""

    max_jobs: int
    max_bytes: int
    lifetime_s: float


def add_job(
    session: Session, cipher: Cipher, new: NewJob, limits: JobLimits, *, gateway_id: int | None = None
) -> tuple[Job, bool]:
    """The job and whether it is new, or else the one that came before under the same Idempotency-Key.

    Raises IdempotencyKeyReused, or Overloaded if the owner has too many.
    """
    lock(session, f"jobs of {new.owner}")
    forget_expired_jobs(session)
    if (found := find_job(session, new)) is not None:
        return found, False
    _check_limits(session, new, limits)
    job = Job(
        id=secrets.token_urlsafe(24),
        owner=new.owner,
        idempotency_key=new.idempotency_key,
        fingerprint=new.request.fingerprint,
        endpoint_name=new.request.endpoint_name,
        request=_to_json(new.request),
        body=new.request.body,
        num_bytes=len(new.request.body),
        state=JobState.QUEUED,
        gateway_id=gateway_id,
        encrypted_webhook_url=None if new.webhook_url is None else cipher.encrypt(new.webhook_url),
    )
    session.add(job)
    session.flush()
    return job, True


def find_job(session: Session, new: NewJob) -> Job | None:
    """The job that came before under the same Idempotency-Key. Raises IdempotencyKeyReused."""
    if new.idempotency_key is None:
        return None
    its_key = (Job.owner == new.owner) & (Job.idempotency_key == new.idempotency_key)
    job = session.scalar(select(Job).where(its_key, _is_kept()))
    if job is not None and job.fingerprint != new.request.fingerprint:
        raise IdempotencyKeyReused(
            "another request was sent with this Idempotency-Key before; send a new key with each new request",
            field="Idempotency-Key",
        )
    return job


def get_job(session: Session, id: str, owner: str, *, is_locked: bool = False) -> Job:
    """Raises ResourceNotFound, saying no more about another's job than about one that is not there."""
    found = select(Job).where(Job.id == id, Job.owner == owner, _is_kept())
    job = session.scalar(found.with_for_update() if is_locked else found)
    if job is None:
        raise ResourceNotFound("no such job of this key; what a job made is kept for a time only")
    return job


def list_jobs(session: Session, owner: str) -> Sequence[Job]:
    """Those that are kept, the newest first."""
    newest = select(Job).where(Job.owner == owner, _is_kept()).order_by(Job.created_at.desc(), Job.id)
    return session.scalars(newest.limit(MAX_LISTED)).all()


def begin_job(session: Session, id: str, *, gateway_id: int | None = None) -> BegunJob | None:
    """The job, which now runs; None if it is not to run any more, or not at this gateway."""
    job = session.get(Job, id, with_for_update=True)
    if job is None or job.state not in LIVE or job.gateway_id != gateway_id:
        return None
    job.state = JobState.RUNNING
    return BegunJob(id, _from_json(job.request, job.endpoint_name, job.body or b""), job.num_lost)


def put_back_job(session: Session, id: str, *, is_lost: bool, gateway_id: int | None = None) -> None:
    """It waits for its turn again."""
    running = (Job.id == id) & (Job.state == JobState.RUNNING) & Job.gateway_id.is_not_distinct_from(gateway_id)
    session.execute(update(Job).where(running).values(state=JobState.QUEUED, num_lost=Job.num_lost + int(is_lost)))


def finish_job(
    session: Session, id: str, answer: Answer, limits: JobLimits, *, gateway_id: int | None = None
) -> JobState | None:
    """Keep the answer; None if the job was canceled meanwhile, or another gateway has taken it over."""
    job = session.get(Job, id, with_for_update=True)
    if job is None or job.state is not JobState.RUNNING or job.gateway_id != gateway_id:
        return None
    job.answer = {"status": answer.status, "headers": [list(each) for each in answer.headers]}
    job.answer_body = answer.body
    _end(job, JobState.SUCCEEDED if answer.status < 400 else JobState.FAILED, limits)
    job.num_bytes = len(answer.body)
    return job.state


def cancel_job(session: Session, id: str, owner: str, limits: JobLimits) -> Job | None:
    """End a job that waits or runs; forget one that has ended, and return None."""
    job = get_job(session, id, owner, is_locked=True)
    if job.state in LIVE:
        _end(job, JobState.CANCELED, limits)
        return job
    session.delete(job)
    return None


def get_answer(session: Session, id: str, owner: str) -> Answer:
    """Raises ResourceNotFound, or Conflict if there is none."""
    job = get_job(session, id, owner)
    if job.state is JobState.CANCELED:
        raise Conflict("the job was canceled; there is no result")
    if job.answer is None:
        raise Conflict(f"the job is {job.state.value}; there is no result yet")
    return Answer(
        status=cast(int, job.answer["status"]),
        headers=_headers_in(job.answer),
        body=job.answer_body or b"",
    )


def recover_jobs(session: Session) -> Sequence[Job]:
    """All jobs that are to run, oldest first; those that ran when the server ended are counted as lost once more."""
    running = Job.state == JobState.RUNNING
    session.execute(update(Job).where(running).values(state=JobState.QUEUED, num_lost=Job.num_lost + 1))
    queued = Job.state == JobState.QUEUED
    return session.scalars(select(Job).where(queued).order_by(Job.created_at, Job.id)).all()


def take_over_jobs(session: Session, gateway_id: int, alive: Collection[int], limit: int) -> Sequence[Job]:
    """Some jobs of dead gateways, oldest first, which are this one's from now on; nobody else takes the same ones."""
    orphaned = Job.state.in_(LIVE) & (Job.gateway_id.is_(None) | Job.gateway_id.not_in(alive))
    oldest = select(Job).where(orphaned).order_by(Job.created_at, Job.id).limit(limit)
    jobs = session.scalars(oldest.with_for_update(skip_locked=True)).all()
    for job in jobs:
        job.num_lost += int(job.state is JobState.RUNNING)
        job.gateway_id, job.state = gateway_id, JobState.QUEUED
    return jobs


def list_own_jobs(session: Session, gateway_id: int) -> Sequence[tuple[str, str]]:
    """The ids and owners of the jobs that are to run at this gateway, oldest first."""
    own = Job.state.in_(LIVE) & (Job.gateway_id == gateway_id)
    rows = session.execute(select(Job.id, Job.owner).where(own).order_by(Job.created_at, Job.id))
    return [(each.id, each.owner) for each in rows]


def list_gone_jobs(session: Session, ids: Collection[str]) -> Collection[str]:
    """Those of `ids` that have ended or are forgotten."""
    return set(ids) - set(session.scalars(select(Job.id).where(Job.id.in_(ids), Job.state.in_(LIVE))))


def forget_expired_jobs(session: Session) -> None:
    session.execute(delete(Job).where(Job.expires_at <= utc_now()))


def list_due_webhooks(session: Session, limit: int, *, besides: Collection[str]) -> Sequence[Job]:
    due = (Job.webhook_due_at <= utc_now()) & Job.id.not_in(besides)
    return session.scalars(select(Job).where(due).order_by(Job.webhook_due_at).limit(limit)).all()


def next_webhook_at(session: Session, *, besides: Collection[str]) -> datetime | None:
    return session.scalar(select(func.min(Job.webhook_due_at)).where(Job.id.not_in(besides)))


def record_webhook(session: Session, id: str, *, next_attempt_at: datetime | None) -> None:
    """One more attempt was made; None: it was the last."""
    attempts = Job.num_webhook_attempts + 1
    values = {"num_webhook_attempts": attempts, "webhook_due_at": next_attempt_at}
    session.execute(update(Job).where(Job.id == id).values(values))


def _end(job: Job, state: JobState, limits: JobLimits) -> None:
    now = utc_now()
    job.state = state
    job.body, job.num_bytes = None, 0
    job.finished_at, job.expires_at = now, now + timedelta(seconds=limits.lifetime_s)
    job.webhook_due_at = now if job.encrypted_webhook_url is not None else None


def _check_limits(session: Session, new: NewJob, limits: JobLimits) -> None:
    count = select(func.count(), func.coalesce(func.sum(Job.num_bytes), 0)).where(Job.owner == new.owner)
    num_jobs, num_bytes = session.execute(count).one()
    if num_jobs >= limits.max_jobs:
        raise Overloaded(
            f"{num_jobs} jobs of this key are kept, which is all that may be; DELETE those that have ended, or wait "
            "until they expire",
            retry_after_s=FULL_RETRY_AFTER_S,
        )
    if num_bytes + len(new.request.body) > limits.max_bytes:
        raise Overloaded(
            f"{num_bytes} bytes are kept for the jobs of this key, and with this one it would be more than "
            f"{limits.max_bytes}; DELETE those that have ended, or wait until they expire",
            retry_after_s=FULL_RETRY_AFTER_S,
        )


def _is_kept() -> ColumnElement[bool]:
    return Job.expires_at.is_(None) | (Job.expires_at > utc_now())


def headers_of(job: Job) -> Headers:
    """What is kept of its request's header."""
    return _headers_in(job.request)


def _to_json(request: StoredRequest) -> dict[str, object]:
    return {
        "server": request.server,
        "path": request.path,
        "query": request.query,
        "headers": [list(each) for each in request.headers],
    }


def _from_json(value: dict[str, object], endpoint_name: str | None, body: bytes) -> StoredRequest:
    return StoredRequest(
        endpoint_name=endpoint_name,
        server=str(value["server"]),
        path=str(value["path"]),
        query=str(value["query"]),
        headers=_headers_in(value),
        body=body,
    )


def _headers_in(value: dict[str, object]) -> Headers:
    return tuple((name, value) for name, value in cast(list[tuple[str, str]], value["headers"]))
