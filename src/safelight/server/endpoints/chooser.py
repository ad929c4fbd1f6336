"""Which deployment of an endpoint answers: the one that the request names, in any of three places, or one by traffic.

    azureml-model-deployment    ->  that one
    /openai/deployments/NAME/   ->  the deployment of this name, if there is one; else NAME is a model's
    `model` in an OpenAI body   ->  the same; the body is read for it if there is a choice

One that is not ready yet is waited for, as `hold_while_loading_s` allows.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from safelight.api.dialects import is_for_pictures
from safelight.api.generate import run_of
from safelight.api.http.bodies.body import declared_bytes
from safelight.api.http.bodies.upload_budget import UploadBudget
from safelight.api.openai import addresses as openai
from safelight.api.openai.models import named_in_body
from safelight.errors import NotReady, Overloaded, SafelightError
from safelight.server.endpoints.early_body import EarlyBody
from safelight.server.endpoints.router import DEPLOYMENT_HEADER, Choice, Location, RoutedEndpoint, choose
from safelight.server.endpoints.routes import EndpointRoutes
from safelight.server.endpoints.starter import ServedDeployment
from safelight.settings import Settings

MAX_WATCHED_BYTES = 64 * 1024
"""Of a body are kept while its client is held; whether the sender of a longer one leaves is seen afterwards."""


class Chooser:
    """For all endpoints of a server; counts the requests that it holds."""

    def __init__(self, routes: EndpointRoutes, settings: Settings, uploads: UploadBudget) -> None:
        self._routes = routes
        self._settings = settings
        self._uploads = uploads
        self._num_held = 0

    async def choose(
        self, request: Request, location: Location[ServedDeployment], receive: Receive
    ) -> tuple[Choice[ServedDeployment], Receive]:
        """The deployment, and the request's `receive` from now on.

        Raises ResourceNotFound, NotReady, Overloaded, DeadlineExceeded or ClientDisconnect.
        """
        body, endpoint = EarlyBody(receive), location.endpoint
        wanted = request.headers.get(DEPLOYMENT_HEADER) or await self._named(request, location, body)
        try:
            return choose(endpoint, wanted), body
        except NotReady as error:
            if run_of(request) is not None or not is_for_pictures(request.method, location.path):
                raise
            return await self._choose_when_ready(endpoint.name, wanted, body, error), body

    async def _named(self, request: Request, location: Location[ServedDeployment], body: EarlyBody) -> str | None:
        """The deployment that an OpenAI request calls its model."""
        endpoint, path = location.endpoint, location.path
        name = openai.deployment_in(path)
        if name is None and request.method == "POST" and openai.takes_model(path) and _has_choice(endpoint):
            name = await self._model_in(request, endpoint, path, body)
        known = {each.lower(): each for each in endpoint.deployments}
        return None if name is None else known.get(name.lower())

    async def _model_in(
        self, request: Request, endpoint: RoutedEndpoint[ServedDeployment], path: str, body: EarlyBody
    ) -> str | None:
        """None too if the body is not what it should be: the deployment's application says so."""
        if run_of(request) is None:
            _refuse_if_all_are_full(endpoint)
        settings, is_upload = self._settings, openai.takes_upload(path)
        max_bytes = settings.max_upload_bytes if is_upload else settings.max_body_bytes
        with ExitStack() as held:
            if is_upload:  # twice: as it came, and taken apart
                num_bytes = declared_bytes(request, max_bytes=max_bytes)
                held.enter_context(self._uploads.hold(2 * num_bytes))
            await body.read(max_bytes=max_bytes, timeout_s=settings.request_timeout_s)
            if not body.is_complete:
                return None
            try:
                return await named_in_body(Request(request.scope, body.copy()), settings, max_bytes=max_bytes)
            except SafelightError:
                return None

    async def _choose_when_ready(
        self, endpoint_name: str, wanted: str | None, body: EarlyBody, error: NotReady
    ) -> Choice[ServedDeployment]:
        settings = self._settings
        hold_s = min(settings.hold_while_loading_s, settings.request_timeout_s)
        if hold_s <= 0 or settings.max_queued_requests == 0:
            raise error
        if self._num_held >= settings.max_queued_requests:
            raise Overloaded(f"{self._num_held} requests wait for deployments to load; send the request again later")
        self._num_held += 1
        ready = asyncio.ensure_future(self._wait_until_ready(endpoint_name, wanted))
        leaving = asyncio.ensure_future(body.client_left(max_bytes=MAX_WATCHED_BYTES))
        try:
            done, _ = await asyncio.wait((ready, leaving), timeout=hold_s, return_when=asyncio.FIRST_COMPLETED)
            if ready in done:
                return ready.result()
            raise ClientDisconnect if leaving in done else error
        finally:
            self._num_held -= 1
            for task in (ready, leaving):
                task.cancel()
            await asyncio.gather(ready, leaving, return_exceptions=True)

    async def _wait_until_ready(self, endpoint_name: str, wanted: str | None) -> Choice[ServedDeployment]:
        while True:
            self._routes.check_open()
            try:
                return choose(self._routes.find(endpoint_name, "/").endpoint, wanted)
            except NotReady:
                await self._routes.wait_for_change()


def _has_choice(endpoint: RoutedEndpoint[ServedDeployment]) -> bool:
    return any(endpoint.traffic.get(name) != 100 for name in endpoint.deployments)


def _refuse_if_all_are_full(endpoint: RoutedEndpoint[ServedDeployment]) -> None:
    """Before a body is read for nothing. Raises Overloaded or NotReady."""
    refusal: SafelightError | None = None
    for deployment in filter(None, endpoint.deployments.values()):
        try:
            deployment.check_at_door()
        except (Overloaded, NotReady) as error:
            refusal = refusal or error
        else:
            return
    if refusal is not None and None not in endpoint.deployments.values():
        raise refusal
