"""The routes of jobs: how one stands, what it was answered with, and its end. `server/jobs/door.py` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from safelight.api.dialect import Dialect, ErrorReport, JsonObject
from safelight.api.http.links import server_url
from safelight.api.http.openapi import error_responses
from safelight.api.huggingface.routes import ScoreError
from safelight.control.jobs.owners import JobSecrets
from safelight.control.jobs.queue import JobQueue, Run
from safelight.control.jobs.records import MAX_LISTED, Answer, get_answer, get_job, list_jobs
from safelight.control.jobs.webhooks import path_of
from safelight.control.plane import ControlPlane
from safelight.control.store.tables import Job, JobState, NewerWord
from safelight.errors import NotReady, ResourceNotFound
from safelight.settings import Settings

TITLE = "Jobs"
PATH = "/jobs/"
LIST_PATH = PATH.rstrip("/")
SECRET_PATH = "/webhook-secret"  # noqa: S105  a path
POLL_AFTER_S = 1

_NOT_FOUND = error_responses(ScoreError, {404: "No such job of this key, or it has expired"})
_NO_LINKS = error_responses(ScoreError, {400: "The request came by a name that is not known to be the server's"})


class JobObject(BaseModel):
    """A job, as its owner reads it."""

    id: str
    state: Literal["queued", "running", "succeeded", "failed", "canceled"]
    position: int | None = Field(description="In the queue; 1 is the next")
    step: int | None = Field(description="Denoising steps that every image has taken")
    steps: int | None = Field(description="Denoising steps of an image")
    preview: str | None = Field(description="Link to the newest preview of the first image")
    result: str | None = Field(description="Link to the answer, when there is one")
    created_at: str
    finished_at: str | None
    expires_at: str | None = Field(description="When the job and its result are forgotten")


class JobList(BaseModel):
    """Jobs of one key, the newest first."""

    jobs: list[JobObject]


class WebhookSecret(BaseModel):
    """What this key's webhooks are signed with."""

    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptJobs:
    """What these routes stand on."""

    plane: ControlPlane
    queue: JobQueue
    secrets: JobSecrets
    settings: Settings


def create_router(kept: KeptJobs) -> APIRouter:
    """The routes of this dialect. `request.state.caller` is who asks."""
    router = APIRouter(tags=[TITLE])
    plane, queue, secrets, settings = kept.plane, kept.queue, kept.secrets, kept.settings

    @router.get(f"{PATH}{{id}}", summary="How a job stands", response_model=JobObject, responses=_NOT_FOUND | _NO_LINKS)
    async def read_job(request: Request, id: str) -> Response:
        server_url(request, settings)  # or a client would be refused in the middle of its polls, at the first link
        owner = request.state.caller.owner
        job = await plane.transact(lambda session: get_job(session, id, owner))
        return render_job(request, job, queue, settings)

    @router.get(LIST_PATH, summary=f"The jobs of this key, the newest {MAX_LISTED}", responses=_NO_LINKS)
    async def read_jobs(request: Request, response: Response) -> JobList:
        response.headers["cache-control"] = "no-store"
        owner = request.state.caller.owner
        found = await plane.transact(lambda session: list_jobs(session, owner))
        return JobList(jobs=[_describe(request, each, queue, settings) for each in found])

    @router.get(f"{PATH}{{id}}/result", summary="The answer, as it would have been without a job", **_RESULT)
    async def read_result(request: Request, id: str) -> Response:
        owner = request.state.caller.owner
        return render_answer(await plane.transact(lambda session: get_answer(session, id, owner)))

    @router.get(f"{PATH}{{id}}/preview", summary="The newest preview of the first image", **_PREVIEW)
    async def read_preview(request: Request, id: str) -> Response:
        owner = request.state.caller.owner
        run = _run_of(await plane.transact(lambda session: get_job(session, id, owner)), queue)
        if run is None or run.preview is None:
            raise ResourceNotFound("there is no preview: the job has not begun, or has ended")
        return Response(run.preview, media_type=run.preview_media_type, headers={"cache-control": "no-store"})

    @router.delete(f"{PATH}{{id}}", summary="Cancel a job; forget one that has ended", **_DELETE)
    async def delete_job(request: Request, id: str) -> Response:
        job = await queue.cancel(id, request.state.caller.owner)
        return Response(status_code=204) if job is None else render_job(request, job, queue, settings)

    @router.get(SECRET_PATH, summary="What this key's webhooks are signed with")
    async def read_webhook_secret(request: Request) -> WebhookSecret:
        return WebhookSecret(secret=secrets.webhook_secret(request.state.caller.owner))

    return router


def render_job(request: Request, job: Job, queue: JobQueue, settings: Settings, *, status: int = 200) -> Response:
    """The job as JSON. Raises InvalidRequest if it has links, and the request came by no known name of this server."""
    content = _describe(request, job, queue, settings)
    headers = {"cache-control": "no-store"}
    if job.finished_at is None:
        headers["retry-after"] = str(POLL_AFTER_S)
    return Response(content.model_dump_json(), status_code=status, media_type="application/json", headers=headers)


def _describe(request: Request, job: Job, queue: JobQueue, settings: Settings) -> JobObject:
    """Raises NotReady for a job in a state that this version does not know."""
    if isinstance(job.state, NewerWord):
        raise NotReady(f"job {job.id} is {job.state}, as a newer version of Safelight says; update this gateway")
    run = _run_of(job, queue)
    has_preview, has_result = run is not None and run.preview is not None, job.answer is not None
    url = server_url(request, settings) + path_of(job) if has_preview or has_result else ""
    step, steps = _progress(run)
    return JobObject(
        id=job.id,
        state=job.state.value,
        position=queue.position_of(job.id) if job.state is JobState.QUEUED else None,
        step=step,
        steps=steps,
        preview=f"{url}/preview" if has_preview else None,
        result=f"{url}/result" if has_result else None,
        created_at=job.created_at.isoformat(),
        finished_at=job.finished_at.isoformat() if job.finished_at else None,
        expires_at=job.expires_at.isoformat() if job.expires_at else None,
    )


def render_answer(answer: Answer) -> Response:
    """Status, header fields and body as they were."""
    response = Response(answer.body, status_code=answer.status)
    response.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    return response


def _run_of(job: Job, queue: JobQueue) -> Run | None:
    return queue.run_of(job.id) if job.state is JobState.RUNNING else None


def _progress(run: Run | None) -> tuple[int | None, int | None]:
    if run is None or not run.num_steps:
        return None, None
    return min(run.steps.values()), run.num_steps


def owns_path(path: str) -> bool:
    return path.startswith(PATH) or path in (LIST_PATH, SECRET_PATH)


def _error_body(_path: str, report: ErrorReport) -> JsonObject:
    return {"error": {"code": report.code, "message": report.message}}


DIALECT = Dialect(name="jobs", title=TITLE, create_router=create_router, owns_path=owns_path, error_body=_error_body)

_RESULT: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"description": "Or any other status: the job's answer, header fields and all"}}
    | _NOT_FOUND
    | error_responses(ScoreError, {409: "The job has not ended, or was canceled"}),
}
_PREVIEW: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"description": "The preview, in the format of the image"}} | _NOT_FOUND,
}
_DELETE: dict[str, Any] = {
    "response_model": JobObject,
    "responses": {200: {"description": "Canceled"}, 204: {"description": "Forgotten"}} | _NOT_FOUND,
}
