"""Puts jobs together: the queue, its webhooks, the door in front of the application, and the routes behind it."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.types import ASGIApp

from safelight.api.dialects import JOBS
from safelight.api.http.errors import render_error
from safelight.api.jobs import KeptJobs
from safelight.control.jobs.owners import JobSecrets
from safelight.control.jobs.queue import JobQueue, Run
from safelight.control.jobs.records import Answer, BegunJob, JobLimits
from safelight.control.jobs.webhook_sender import WebhookSender
from safelight.control.jobs.webhooks import Webhooks
from safelight.control.store.gateways import News
from safelight.errors import EngineFailure
from safelight.server.auth import ServerKey
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.server.jobs.door import Callers, JobDoor
from safelight.server.jobs.resend import answer_of, replayed_scope, send_through
from safelight.settings import Settings
from safelight.telemetry.spans import Tracer

logger = logging.getLogger(__name__)

MAX_LOST = 3


class Jobs:
    """Everything behind `Prefer: respond-async` and `Idempotency-Key`; `start` takes up what a server left behind."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        online: OnlineEndpoints,
        *,
        key: ServerKey | None,
        tracer: Tracer | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._plane = online.plane
        self._uploads = online.uploads
        self._secrets = JobSecrets(settings.data_dir)
        self._callers = Callers(online.routes, key, self._secrets)
        self._sender = WebhookSender(allows_private=settings.webhooks_to_private_addresses)
        self._webhooks = Webhooks(
            self._plane,
            self._sender,
            self._secrets,
            public_url=settings.public_url,
            standing=online.gateways.standing,
            tracer=tracer,
        )
        limits = JobLimits(
            max_jobs=settings.max_jobs_per_key,
            max_bytes=settings.max_job_bytes_per_key,
            lifetime_s=settings.job_lifetime_s,
        )
        self.queue = JobQueue(
            self._plane,
            self._perform,
            limits=limits,
            max_running=settings.max_running_jobs,
            standing=online.gateways.standing,
            on_end=self._webhooks.wake,
        )
        online.gateways.tell(self._note)
        kept = KeptJobs(plane=self._plane, queue=self.queue, secrets=self._secrets, settings=settings)
        self.router = JOBS.create_router(kept)

    async def start(self) -> None:
        await self.queue.start()
        await self._webhooks.start()

    async def stop(self) -> None:
        """What waits, runs or is to be told stays in the database."""
        await self.queue.stop()
        await self._webhooks.stop()

    def door(self, app: ASGIApp) -> JobDoor:
        """The application with jobs in front of it."""
        return JobDoor(
            app,
            plane=self._plane,
            queue=self.queue,
            callers=self._callers,
            sender=self._sender,
            settings=self._settings,
            uploads=self._uploads,
        )

    def _note(self, news: News) -> None:
        self.queue.note(news)
        self._webhooks.wake()

    async def _perform(self, job: BegunJob, run: Run) -> Answer:
        """The answer of the whole application, as the client would have had it."""
        error = EngineFailure(f"the server or its replica ended {MAX_LOST} times while it worked on this")
        if job.num_lost < MAX_LOST:
            try:
                return await send_through(self._app, job.request, run, request_id=job.id)
            except Exception:  # the ASGI edge of a job: it would never end
                logger.exception("job %s", job.id)
                error = EngineFailure("an internal error; the log has it")
        return answer_of(render_error(Request(replayed_scope(job.request, run, job.id)), error))
