"""The data plane's door: finds the endpoint of a request, checks its credentials, and hands it to a deployment's app.

Whatever names no endpoint goes on to the server's own model; the paths of Azure Resource Manager go to theirs.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.api import dialects
from safelight.api.azure.wire import canonical_path
from safelight.api.generate import run_of
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.api.http.errors import render_error
from safelight.api.openai.models import Neighbours
from safelight.errors import SafelightError
from safelight.server.auth import caller_of, key_of, vouch_for
from safelight.server.endpoints.chooser import Chooser
from safelight.server.endpoints.router import DEPLOYMENT_HEADER, PATH_PREFIX, Choice, Location
from safelight.server.endpoints.routes import EndpointRoutes, inner_path
from safelight.server.endpoints.starter import ServedDeployment
from safelight.server.error_handlers import CLIENT_LEFT, worded
from safelight.server.web import page
from safelight.settings import Settings

logger = logging.getLogger(__name__)

GATEWAY_STATUSES = frozenset({401, 404, 408, 413, 429, CLIENT_LEFT})
"""With Azure's status codes these are the gateway's own; every other error is the model's, and becomes 424."""


class EndpointGateway:
    """ASGI middleware around the application of the server's own model."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: EndpointRoutes,
        arm: ASGIApp,
        settings: Settings,
        uploads: UploadBudget,
    ) -> None:
        self._app = app
        self._routes = routes
        self._arm = arm
        self._chooser = Chooser(routes, settings, uploads)
        self._has_azure_status_codes = settings.azure_status_codes
        self._max_mirrored_bytes = settings.max_body_bytes
        self._mirrored: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or dialects.is_open(scope["path"]):
            await self._app(scope, receive, send)
        elif dialects.CONTROL_PLANE.owns_path(scope["path"]):
            inner = {**scope, "path": canonical_path(scope["path"])}
            await self._arm(inner, receive, send)
            scope["route"] = inner.get("route")
        else:
            await self._route(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, path = Request(scope), inner_path(scope["path"])
        if page.is_for(request, path):
            await self._send_page(scope, receive, send)
            return
        try:
            location = await self._admit(request)
            if location is None:
                await self._app(scope, receive, send)
                return
            choice, receive = await self._chooser.choose(request, location, receive)
        except (SafelightError, ClientDisconnect) as error:
            inner = Request(worded(scope, path, dialects.PICTURES))
            await render_error(inner, error)(scope, receive, send)
            return
        request.state.deployment, inside = choice.name, _inside(scope, location, choice)
        try:
            await self._forward(choice, inside, receive, send)
        finally:
            scope["route"] = inside.get("route")  # for the edge, which calls a request by it

    async def _send_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same for every endpoint, be there one or not: what it shows it asks for with a key."""
        name, slash, _ = scope["path"].removeprefix(PATH_PREFIX).partition("/")
        if scope["path"].startswith(PATH_PREFIX) and not slash:
            await page.to_page(f"{quote(name, safe='')}/")(scope, receive, send)
            return
        path = inner_path(scope["path"])
        await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    async def _admit(self, request: Request) -> Location[ServedDeployment] | None:
        """Where a request goes that may; None: to the server's own model, which checks its own key."""
        if (caller := caller_of(request.scope)) is not None:
            name = caller.endpoint_name
            request.state.endpoint = name or ""
            return None if name is None else self._routes.find(name, request.scope["path"])
        location = self._routes.locate(request)
        if location is not None:
            request.state.endpoint = location.endpoint.name
            await self._routes.check(location.endpoint.name, key_of(request))
            vouch_for(request)
        return location

    async def _forward(self, choice: Choice[ServedDeployment], scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[DEPLOYMENT_HEADER] = choice.name
                if self._has_azure_status_codes:
                    _use_azure_status(message, headers)
            await send(message)

        if choice.mirror is not None and not _is_check(scope):
            receive = self._mirroring(choice.mirror, scope, receive)
        await choice.deployment(scope, receive, send_named)

    def _mirroring(self, mirror: ServedDeployment, scope: Scope, receive: Receive) -> Receive:
        """`receive`, and when the body is complete a copy of the request goes to `mirror`, whose answer is dropped."""
        body = bytearray()

        async def receive_and_copy() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                if len(body) <= self._max_mirrored_bytes:
                    body.extend(message.get("body", b""))
                if not message.get("more_body") and len(body) <= self._max_mirrored_bytes:
                    task = asyncio.create_task(_send_copy(mirror, scope, bytes(body)))
                    self._mirrored.add(task)
                    task.add_done_callback(self._mirrored.discard)
            return message

        return receive_and_copy


def _inside(scope: Scope, location: Location[ServedDeployment], choice: Choice[ServedDeployment]) -> Scope:
    """The request as the deployment's application sees it."""
    path, deployments = location.path, location.endpoint.deployments
    models = {name: None if each is None else each.model_id for name, each in deployments.items()}
    inner = worded(scope, path, dialects.PICTURES)
    state = {
        **inner["state"],
        "neighbours": Neighbours(choice.name, models),
        "path_prefix": scope["path"].removesuffix(path) if scope["path"].startswith(PATH_PREFIX) else "",
    }
    return {**inner, "raw_path": path.encode(), "state": state}


async def _send_copy(mirror: ServedDeployment, scope: Scope, body: bytes) -> None:
    """Its outcome is nobody's but the log's."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        if pending:
            return pending.pop()
        await asyncio.Event().wait()
        raise AssertionError("a copy has no client that could leave")

    async def discard(_: Message) -> None:
        """Nobody reads it."""

    state = {**scope.get("state", {}), "generation_id": uuid.uuid4().hex, "run": None}
    try:
        await mirror({**scope, "state": state}, replay, discard)
    except SafelightError as error:
        logger.warning("mirrored request: %s", error.message)


def _is_check(scope: Scope) -> bool:
    """Whether it is only looked at, before it becomes a job."""
    run = run_of(Request(scope))
    return run is not None and run.is_check


def _use_azure_status(message: Message, headers: MutableHeaders) -> None:
    status = message["status"]
    if status >= 400 and status not in GATEWAY_STATUSES:
        message["status"] = 424
        headers["ms-azureml-model-error-statuscode"] = str(status)
        headers["ms-azureml-model-error-reason"] = "model_error"
