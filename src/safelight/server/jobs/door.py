"""Jobs at the door: a request that is to outlive its connection is looked at, kept, and sent through the routes later.

    Prefer: respond-async   ->  check  ->  JobQueue  ->  202, and GET /jobs/{id}
    Idempotency-Key         ->  check  ->  JobQueue  ->  the answer, when it is there

Both send the request through the application as a client would, so that an answer is what it would have been; the
credentials were checked before and are not kept, and the `Caller` in the scope's state stands for them.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from safelight.api import dialects, jobs
from safelight.api.http.bodies.body import declared_bytes, read_bytes
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.api.http.disconnect import while_connected
from safelight.api.http.errors import render_error
from safelight.api.http.links import known_server_url, server_url
from safelight.control.jobs.owners import JobSecrets
from safelight.control.jobs.queue import JobQueue, Run
from safelight.control.jobs.records import Answer, NewJob, StoredRequest, find_job, get_answer, get_job
from safelight.control.jobs.webhook_sender import HEADER as WEBHOOK_URL
from safelight.control.jobs.webhook_sender import WebhookSender
from safelight.control.jobs.webhooks import path_of
from safelight.control.plane import ControlPlane
from safelight.control.store.tables import Job, JobState
from safelight.errors import InvalidRequest, NotReady, SafelightError, StorageUnavailable
from safelight.server.auth import Caller, ServerKey, caller_of, key_of, vouch_for
from safelight.server.endpoints.routes import EndpointRoutes, inner_path
from safelight.server.error_handlers import worded
from safelight.server.jobs.preferences import RESPOND_ASYNC, Preferences, read_preferences
from safelight.server.jobs.resend import send_through
from safelight.settings import Settings
from safelight.telemetry.names import current_names

IDEMPOTENCY_KEY = "Idempotency-Key"
KEPT_HEADERS = frozenset({"accept", "content-type", "azureml-model-deployment"})
"""What is kept of a request's header beside its place in a trace: what an answer depends on, and no credential."""
MAX_KEY_CHARACTERS = 255


class JobDoor:
    """ASGI middleware in front of endpoints and keys."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        plane: ControlPlane,
        queue: JobQueue,
        callers: Callers,
        sender: WebhookSender,
        settings: Settings,
        uploads: UploadBudget,
    ) -> None:
        self._app = app
        self._plane = plane
        self._queue = queue
        self._callers = callers
        self._sender = sender
        self._settings = settings
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or caller_of(scope) is not None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        path = inner_path(scope["path"])
        try:
            if dialects.JOBS.owns_path(path):
                caller, _ = await self._callers.identify(request)
                await self._app(_inside(scope, path, Caller(None, caller.owner)), receive, send)
            elif _is_for_a_job(request, path):
                response = await self._answer(request)
                await response(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except (SafelightError, ClientDisconnect) as error:
            inner = Request(worded(scope, path, dialects.all_dialects()))
            await render_error(inner, error)(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        """What a request is answered with that is to become a job, or has become one before."""
        preferences = read_preferences(request.headers.getlist("prefer"))
        taken = await self._take(request, preferences)
        if isinstance(taken, Answer):
            return jobs.render_answer(taken)
        job, is_new = taken
        wait_s = self._settings.request_timeout_s
        if preferences.is_async:
            wait_s = min(wait_s, preferences.wait_s)
        job = await self._wait(request, job, wait_s)
        if preferences.is_async and (job.answer is None or not preferences.wait_s):
            return self._accepted(request, job)
        return await self._replay(job, is_new)

    async def _take(self, request: Request, preferences: Preferences) -> tuple[Job, bool] | Answer:
        """The job, and whether it is new; or what is answered to a request that cannot become one."""
        caller, path = await self._callers.identify(request)
        with self._uploads.hold(declared_bytes(request, max_bytes=self._settings.max_upload_bytes)):
            new = await self._read(request, caller, path, preferences)
            job = await self._plane.transact(lambda session: find_job(session, new))
            if job is None:
                check = Run(is_check=True)
                answer = await send_through(
                    self._app, new.request, check, request_id=request.state.request_id, within=request.scope
                )
                if not check.is_valid:
                    return answer
            return await self._queue.submit(new)

    async def _read(self, request: Request, caller: Caller, path: str, preferences: Preferences) -> NewJob:
        """Everything about the job to be. Raises InvalidRequest, BodyTooLarge or DeadlineExceeded."""
        key = _checked_key(request.headers)
        url = _only(request.headers, WEBHOOK_URL)
        if url is not None and not preferences.is_async:
            raise InvalidRequest(f"{WEBHOOK_URL} goes with `Prefer: {RESPOND_ASYNC}`; send both", field=WEBHOOK_URL)
        server = known_server_url(request, self._settings) or ""
        if url is not None:
            server = server_url(request, self._settings)  # its message has links
            await self._sender.check(url)
        max_bytes, timeout_s = self._settings.max_upload_bytes, self._settings.request_timeout_s
        body = await read_bytes(request, max_bytes=max_bytes, timeout_s=timeout_s)
        return NewJob(
            owner=caller.owner,
            idempotency_key=key,
            webhook_url=url,
            request=StoredRequest(
                endpoint_name=caller.endpoint_name,
                server=server,
                path=path,
                query=request.scope["query_string"].decode("latin-1"),
                headers=(
                    *((name, value) for name, value in request.headers.items() if name in KEPT_HEADERS),
                    *current_names().trace_headers,
                ),
                body=body,
            ),
        )

    async def _wait(self, request: Request, job: Job, wait_s: float) -> Job:
        """The job when it has ended, or time is up. That its client leaves does not end it."""
        if wait_s > 0 and job.finished_at is None:
            await while_connected(request, self._queue.wait(job.id, wait_s))
            return await self._plane.transact(lambda session: get_job(session, job.id, job.owner))
        return job

    def _accepted(self, request: Request, job: Job) -> Response:
        response = jobs.render_job(request, job, self._queue, self._settings, status=202)
        response.headers["location"] = (self._settings.public_url or "").rstrip("/") + path_of(job)
        response.headers["preference-applied"] = RESPOND_ASYNC
        return response

    async def _replay(self, job: Job, is_new: bool) -> Response:
        if job.state in (JobState.QUEUED, JobState.RUNNING):
            if (refusal := self._queue.refusal_of(job.id)) is not None:
                raise StorageUnavailable(refusal)
            raise NotReady(f"still being worked on; send the request again with the same {IDEMPOTENCY_KEY}")
        response = jobs.render_answer(
            await self._plane.transact(lambda session: get_answer(session, job.id, job.owner))
        )
        if not is_new:
            response.headers["idempotent-replayed"] = "true"
        return response


class NoJobs:
    """ASGI middleware of a server without jobs: refuses what only they can do. `Prefer` may be ignored (RFC 7240)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            header = next((each for each in (IDEMPOTENCY_KEY, WEBHOOK_URL) if each in request.headers), None)
            if header is not None and dialects.is_for_pictures(request.method, scope["path"]):
                error = InvalidRequest(
                    f"this server keeps no jobs and cannot do what {header} asks for; send the request without it, or "
                    "start the server without --no-online-endpoints",
                    field=header,
                )
                await render_error(request, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Callers:
    """Checks credentials as the gateway and the server's own model do, and gives who sent them a name."""

    def __init__(self, routes: EndpointRoutes, key: ServerKey | None, secrets: JobSecrets) -> None:
        self._routes = routes
        self._key = key
        self._secrets = secrets

    async def identify(self, request: Request) -> tuple[Caller, str]:
        """The caller, and the path behind the endpoint's name. Raises AuthenticationFailed, ResourceNotFound, NotReady.

        Without a key for the server's own model all who send to it are one.
        """
        location, key = self._routes.locate(request), key_of(request)
        if location is not None:
            name = request.state.endpoint = location.endpoint.name
            await self._routes.check(name, key)
            vouch_for(request)
            identity = self._routes.identity_of(name, key)
            return Caller(name, self._secrets.owner_of(name, identity)), location.path
        if self._key is not None:
            self._key.check(request)
            vouch_for(request)
        identity = "" if self._key is None else f"key {key}"
        return Caller(None, self._secrets.owner_of(None, identity)), request.scope["path"]


def _inside(scope: Scope, path: str, caller: Caller) -> Scope:
    inner = worded(scope, path, dialects.all_dialects())
    return {**inner, "raw_path": path.encode(), "state": {**inner["state"], "caller": caller}}


def _is_for_a_job(request: Request, path: str) -> bool:
    if not dialects.is_for_pictures(request.method, path):
        return False
    wants = read_preferences(request.headers.getlist("prefer"))
    return wants.is_async or IDEMPOTENCY_KEY in request.headers or WEBHOOK_URL in request.headers


def _checked_key(headers: Headers) -> str | None:
    key = _only(headers, IDEMPOTENCY_KEY)
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"{IDEMPOTENCY_KEY} must have 1 to {MAX_KEY_CHARACTERS} printable ASCII characters", field=IDEMPOTENCY_KEY
        )
    return key


def _only(headers: Headers, name: str) -> str | None:
    """The field of this name, or None. Raises InvalidRequest if it was sent twice."""
    fields = headers.getlist(name)
    if len(fields) > 1:
        raise InvalidRequest(f"{name} was sent {len(fields)} times; send it once", field=name)
    return fields[0] if fields else None
