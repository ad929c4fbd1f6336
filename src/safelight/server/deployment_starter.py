"""Serving for the reconciler: a deployment becomes a dispatcher with local replicas, and the application before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from starlette.types import ASGIApp

from safelight import hub
from safelight.control.catalog import Model, resolve_model
from safelight.control.deployments import AppliedDeployment
from safelight.control.logs import DeploymentLog
from safelight.control.secret_references import HUB_TOKEN
from safelight.errors import ModelLoadError, ModelNotFound
from safelight.model_spec import ModelSpec, read_model_spec
from safelight.serving.deployment import create_dispatcher
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.local_replica import COMMAND
from safelight.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class ServedDeployment:
    """The replicas of one deployment, and the routes that lead to them."""

    dispatcher: Dispatcher
    app: ASGIApp
    drain_timeout_s: float

    async def stop(self) -> None:
        await self.dispatcher.drain(self.drain_timeout_s)


class DeploymentStarter:
    """Fetches models from the hub and starts replicas on this machine."""

    def __init__(
        self,
        settings: Settings,
        create_app: Callable[[Settings, Dispatcher], ASGIApp],
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._settings = settings
        self._create_app = create_app
        self._command = command

    async def fetch(self, model: Model, environment: Mapping[str, str], log: DeploymentLog) -> Path:
        if model.hub_id is None:
            raise ModelLoadError(f"model {model.name} has neither a folder nor a hub id")
        hub_id, token = model.hub_id, environment.get(HUB_TOKEN)
        log.write(f"fetching {hub_id} from the hub (resumes if it was begun)", "StorageInitializer")
        folder = await _in_daemon_thread(lambda: hub.download(hub_id, token=token))
        log.write(f"fetched revision {folder.name} to {folder}", "StorageInitializer")
        return folder

    async def start(self, deployment: AppliedDeployment, log: DeploymentLog) -> ServedDeployment:
        spec = deployment.spec
        settings = self._settings.model_copy(
            update={
                "model": spec.model,
                "replicas": spec.instance_count,
                "request_timeout_s": spec.request_timeout_s,
                "max_concurrent_requests_per_instance": spec.max_concurrent_requests_per_instance,
                "max_queued_requests": spec.max_concurrent_requests_per_instance * spec.instance_count,
            }
        )
        model_spec = await asyncio.to_thread(_read_spec, deployment)
        log.write(f"starting {spec.instance_count} replica(s) of {model_spec.name} from {deployment.folder}")
        dispatcher = create_dispatcher(settings, deployment.folder, model_spec, command=self._command)
        await dispatcher.start()
        try:
            await dispatcher.wait_until_ready()
        except BaseException:
            await dispatcher.stop()
            raise
        return ServedDeployment(dispatcher, self._create_app(settings, dispatcher), self._settings.drain_timeout_s)


def _read_spec(deployment: AppliedDeployment) -> ModelSpec:
    """The catalogue's word on a model that it knows, else what the folder says."""
    try:
        known = resolve_model(deployment.spec.model).spec
    except ModelNotFound:
        known = None
    return known or read_model_spec(deployment.folder)


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, but a server that stops does not wait for a download of many gigabytes."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  carried over to whoever awaits
            failure = error
        loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, daemon=True, name="download").start()
    return await future
