"""Tells a webhook that a job has ended: at least once if it can be reached, again with growing pauses, over restarts.

What is due is in the database. A message that was sent when the server was killed is sent again under the same
`webhook-id`, by which its receiver knows it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import httpx
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from safelight.control.jobs.owners import JobSecrets
from safelight.control.jobs.records import headers_of, list_due_webhooks, next_webhook_at, record_webhook
from safelight.control.jobs.webhook_sender import Message, WebhookSender
from safelight.control.plane import ControlPlane
from safelight.control.store.gateways import Role, Standing
from safelight.control.store.tables import Job, utc_now
from safelight.errors import ConfigurationError, InvalidRequest, StorageUnavailable
from safelight.telemetry.names import current_names, names_from
from safelight.telemetry.spans import Tracer, during

logger = logging.getLogger(__name__)

PAUSES_S = (5, 30, 120, 600, 1800)
"""After each attempt that failed; then it is given up."""
MAX_AT_ONCE = 8
GONE = 410
"""The receiver wants no more of this."""


class Webhooks:
    """Owns the task that sends what is due."""

    def __init__(
        self,
        plane: ControlPlane,
        sender: WebhookSender,
        secrets: JobSecrets,
        *,
        public_url: str | None,
        standing: Standing | None = None,
        pauses_s: Sequence[float] = PAUSES_S,
        tracer: Tracer | None = None,
    ) -> None:
        self._plane = plane
        self._sender = sender
        self._secrets = secrets
        self._public_url = public_url
        self._standing = standing or Standing()
        self._pauses_s = pauses_s
        self._tracer = tracer
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._attempts: dict[str, asyncio.Task[None]] = {}
        """By the id of the job: those under way, so that a slow receiver keeps no other one waiting."""

    async def start(self) -> None:
        self._task = asyncio.create_task(self._send_all(), name="webhooks")

    async def stop(self) -> None:
        """What is due stays so."""
        if self._task is not None:
            tasks = (self._task, *self._attempts.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """A job has ended, or this gateway may lead now: of several only the leader sends."""
        self._changed.set()

    async def _send_all(self) -> None:
        while True:
            self._changed.clear()
            if self._standing.role is not Role.LEADER:
                await self._changed.wait()
                continue
            busy = frozenset(self._attempts)
            try:
                due, next_at = await self._plane.transact(lambda session: _read_due(session, busy))  # noqa: B023
            except (SQLAlchemyError, StorageUnavailable) as error:
                _log(error)
                due, next_at = [], utc_now() + timedelta(seconds=PAUSES_S[0])
            for job in due:
                self._attempts[job.id] = task = asyncio.create_task(self._tell(job), name=f"webhook of job {job.id}")
                task.add_done_callback(partial(self._end_attempt, job.id))
            with suppress(TimeoutError):
                async with asyncio.timeout(_seconds_until(next_at)):
                    await self._changed.wait()

    def _end_attempt(self, id: str, _task: asyncio.Task[None]) -> None:
        del self._attempts[id]
        self._changed.set()

    async def _tell(self, job: Job) -> None:
        """One attempt, and when the next one is due."""
        names = names_from(job.id, headers_of(job))
        span = None if self._tracer is None else self._tracer.start("webhook", names, "client")
        with during(span, names if span is None else span.names_for(job.id)):
            problem = await self._attempt(job)
        if span is not None:
            span.set({"safelight.request_id": job.id})
            if problem is not None:
                span.fail("webhook")
            span.end()
        pause_s = None
        if problem is not None and job.num_webhook_attempts < len(self._pauses_s):
            pause_s = self._pauses_s[job.num_webhook_attempts]
        if problem is not None:
            what_next = "it is given up" if pause_s is None else f"trying again in {pause_s:g} s"
            logger.warning("the webhook of job %s: %s; %s", job.id, problem, what_next)
        await self._record(job.id, None if pause_s is None else utc_now() + timedelta(seconds=pause_s))

    async def _record(self, id: str, next_at: datetime | None) -> None:
        """However often it takes: a message is not sent again because a disk is full."""
        while True:
            try:
                await self._plane.transact(lambda session: record_webhook(session, id, next_attempt_at=next_at))
                return
            except (SQLAlchemyError, StorageUnavailable) as error:
                _log(error)
                await asyncio.sleep(PAUSES_S[0])

    async def _attempt(self, job: Job) -> str | None:
        """What went wrong. Never the URL, which may hold a secret."""
        message = message_of(job, self._public_url)
        signed = message.signed(self._secrets.webhook_key(job.owner), int(time.time()))
        headers = {**signed, **dict(current_names().trace_headers)}
        try:
            url = self._plane.cipher.decrypt(str(job.encrypted_webhook_url))
            status = await self._sender.send(url, message.body, headers)
        except TimeoutError:
            return "no answer in time"
        except (InvalidRequest, ConfigurationError) as error:
            return error.message
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return f"it cannot be reached ({type(error).__name__})"
        return None if 200 <= status < 300 or status == GONE else f"it answered {status}"


def message_of(job: Job, public_url: str | None) -> Message:
    """The message that a job has ended."""
    url = (public_url or str(job.request["server"])).rstrip("/") + path_of(job)
    data = {"id": job.id, "state": job.state.value, "job": url, "result": f"{url}/result" if job.answer else None}
    ended_at = (job.finished_at or utc_now()).isoformat()
    content = {"type": f"job.{job.state.value}", "timestamp": ended_at, "data": data}
    return Message(id=f"msg_{job.id}", body=json.dumps(content).encode())


def path_of(job: Job) -> str:
    """Where a job's owner finds it, on this server."""
    endpoint = "" if job.endpoint_name is None else f"/endpoints/{job.endpoint_name}"
    return f"{endpoint}/jobs/{job.id}"


def _log(error: SQLAlchemyError | StorageUnavailable) -> None:
    if not isinstance(error, StorageUnavailable):  # that is in the log already
        logger.error("webhooks: the database cannot be used; trying again in %g s: %s", PAUSES_S[0], error)


def _read_due(session: Session, busy: frozenset[str]) -> tuple[list[Job], datetime | None]:
    """What is to be sent now, and when there is more; None: when another attempt has ended."""
    room = MAX_AT_ONCE - len(busy)
    due = list(list_due_webhooks(session, room, besides=busy))
    if len(due) == room:
        return due, None
    return due, next_webhook_at(session, besides=busy | {job.id for job in due})


def _seconds_until(moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, (moment - utc_now()).total_seconds())
