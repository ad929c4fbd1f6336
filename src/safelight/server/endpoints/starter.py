"""Serving for the reconciler: a deployment becomes a dispatcher with replicas, and the application before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from safelight.api.openai.models import read_aliases, served_model
from safelight.control.endpoints.deployments import AppliedDeployment, DeploymentSpec
from safelight.control.endpoints.logs import DeploymentLog
from safelight.control.endpoints.warnings import warnings_for
from safelight.control.secrets.secret_references import HUB_TOKEN
from safelight.environment import read_environment
from safelight.errors import ConfigurationError, DownloadError, ModelLoadError, SafelightError
from safelight.model import hub
from safelight.model.catalog import Model, name_in
from safelight.model.locate import locate_folder, spec_in
from safelight.model.loras import locate_loras
from safelight.model.memory.stored_parts import describe_parts
from safelight.model.spec import LoraFile, ModelSpec
from safelight.server.endpoints.download_progress import DownloadProgress
from safelight.server.endpoints.last_words import known_secrets, last_lines
from safelight.server.pace import OF_DEPLOYMENT, pace_warning
from safelight.serving.backends.protocol import LOAD_TIMEOUT_S, MIN_PATIENCE_S, ReplicasFactory
from safelight.serving.backends.registry import components_here
from safelight.serving.dispatcher import Dispatcher, ReplicaSnapshot
from safelight.serving.start import create_dispatcher
from safelight.settings import DeploymentSettings, Settings, deployment_settings, part_of

T = TypeVar("T")


class ServedDeployment:
    """The replicas of one deployment, and the application in front of them."""

    def __init__(
        self, dispatcher: Dispatcher, app: ASGIApp, drain_timeout_s: float, *, model_id: str | None = None
    ) -> None:
        self.model_id = model_id
        self.dispatcher = dispatcher
        self._app = app
        self._drain_timeout_s = drain_timeout_s
        self._num_inside = 0
        self._left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._num_inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_inside -= 1
            self._left.set()

    @property
    def replicas(self) -> Sequence[ReplicaSnapshot]:
        return self.dispatcher.snapshot().replicas

    def check_at_door(self) -> None:
        """Raises Overloaded or NotReady if a request that comes now is refused."""
        self.dispatcher.check_at_door()

    async def stop(self) -> None:
        """Let those finish that are inside, be it that they have only begun to send; then end the replicas."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._num_inside:
                    self._left.clear()
                    await self._left.wait()
        await self.dispatcher.drain(max(0.0, deadline - loop.time()))


class DeploymentStarter:
    """Fetches models from the hub and starts replicas of them."""

    def __init__(
        self,
        settings: Settings,
        create_replicas: ReplicasFactory,
        create_app: Callable[[DeploymentSettings, Dispatcher], ASGIApp],
    ) -> None:
        self._settings = settings
        self._create_replicas = create_replicas
        self._create_app = create_app
        self.starting: dict[tuple[str, str], Dispatcher] = {}
        """By endpoint and deployment: what loads its model, be it beside one that serves until then."""

    async def fetch(self, model: Model, environment: Mapping[str, str], log: DeploymentLog) -> Path:
        def download(hub_id: str, revision: str | None) -> Path:
            at = f" at revision {revision}" if revision else ""
            log.write(f"fetching {hub_id}{at} from the hub", "StorageInitializer")
            report = DownloadProgress(hub_id, lambda line: log.write(line, "StorageInitializer")).report
            components = components_here(self._settings)  # elsewhere each node fetches its weights
            token = environment.get(HUB_TOKEN)
            folder = hub.download_model(hub_id, revision=revision, token=token, components=components, report=report)
            log.write(f"fetched revision {folder.name} to {folder}", "StorageInitializer")
            return folder

        return await _in_daemon_thread(lambda: locate_folder(model, download))

    async def start(self, deployment: AppliedDeployment, log: DeploymentLog) -> ServedDeployment:
        spec = deployment.spec
        settings = _settings_of(deployment, idle_unload=self._settings.idle_unload)
        model_spec = await asyncio.to_thread(self._read_spec, deployment)
        settings = _with_names(settings, deployment, model_spec)
        model_id = name_in(spec.model) or served_model(settings, model_spec).id
        if settings.loras:
            located = await _in_daemon_thread(lambda: _locate_loras(settings.loras, deployment))
            model_spec = replace(model_spec, loras=located)
            log.write(f"LoRAs: {', '.join(each.name for each in located)}")
        log.write(f"starting {spec.num_instances} replica(s) of {model_spec.name} from {deployment.folder}")
        for warning in warnings_for(spec, runtime=self._settings.runtime):
            log.write(f"warning: {warning}")
        dispatcher = create_dispatcher(
            self._create_replicas,
            self._settings,
            deployment.folder,
            model_spec,
            name=f"{deployment.endpoint_name}/{deployment.name}",
            instance_type=spec.instance_type,
            deployment=settings,
            variables=deployment.environment,
            load_timeout_s=spec.load_timeout_s or LOAD_TIMEOUT_S,
            min_patience_s=spec.max_silence_s or MIN_PATIENCE_S,
        )
        place = (deployment.endpoint_name, deployment.name)
        self.starting[place] = dispatcher
        try:
            await self._wait_until_ready(dispatcher, deployment, log)
        finally:
            self.starting.pop(place, None)
        slow = pace_warning(
            dispatcher.spec, dispatcher.picture_s, timeout_s=settings.request_timeout_s, remedy=OF_DEPLOYMENT
        )
        if slow is not None:
            log.write(f"warning: {slow}")
        app = self._create_app(settings, dispatcher)
        return ServedDeployment(dispatcher, app, self._settings.drain_timeout_s, model_id=model_id)

    def _read_spec(self, deployment: AppliedDeployment) -> ModelSpec:
        """Raises ModelLoadError, for files that are broken too, before a replica imports torch for them."""
        spec = spec_in(deployment.folder, deployment.spec.model)
        if components_here(self._settings) is None:  # else some of its weights are elsewhere
            describe_parts(deployment.folder)
        return spec

    async def _wait_until_ready(
        self, dispatcher: Dispatcher, deployment: AppliedDeployment, log: DeploymentLog
    ) -> None:
        """Start the replicas; if none becomes ready, they are ended, and the log has the last words of one."""
        try:
            await dispatcher.start()
            if plan := await dispatcher.wait_for_plan():
                log.write(plan)
            await dispatcher.wait_until_ready()
        except BaseException as error:
            if isinstance(error, SafelightError):
                for line in last_lines(dispatcher.last_words, known_secrets(deployment, read_environment())):
                    log.write(f"the replica said: {line}")
            await dispatcher.stop()
            raise


def _settings_of(deployment: AppliedDeployment, *, idle_unload: float) -> DeploymentSettings:
    """`idle_unload` is the server's, unless the deployment says another."""
    spec = deployment.spec
    return deployment_settings(
        deployment.environment,
        model=spec.model,
        idle_unload=idle_unload,
        replicas=spec.num_instances,
        **_scaling_of(spec),
        request_timeout_s=spec.request_timeout_s,
        max_concurrent_requests_per_instance=spec.max_concurrent_requests_per_instance,
        max_queued_requests=spec.max_concurrent_requests_per_instance * spec.max_instances,
        max_queue_wait_s=spec.max_queue_wait_s,
    )


def _scaling_of(spec: DeploymentSpec) -> dict[str, float]:
    scale = spec.scale_settings
    if scale is None:
        return {}
    return {
        "max_replicas": scale.max_instances,
        "target_utilization": scale.target_utilization_percentage / 100,
        "scaling_interval_s": scale.polling_interval_s,
    }


def _with_names(settings: DeploymentSettings, deployment: AppliedDeployment, spec: ModelSpec) -> DeploymentSettings:
    """With the aliases that mean this model, and the name that it is registered by. Raises ConfigurationError."""
    registered = name_in(deployment.spec.model)
    names = [deployment.name, *([registered] if registered else []), spec.name]
    try:
        aliases = read_aliases(settings.model_aliases, list(dict.fromkeys(names)))
    except ConfigurationError as error:
        raise _in_variable("SAFELIGHT_MODEL_ALIASES", error) from None
    aliases |= {registered.lower()} if registered else frozenset()
    return part_of(settings, DeploymentSettings, model_aliases=tuple(f"{each}={spec.name}" for each in sorted(aliases)))


def _locate_loras(entries: Sequence[str], deployment: AppliedDeployment) -> tuple[LoraFile, ...]:
    try:
        return locate_loras(entries, token=deployment.environment.get(HUB_TOKEN))
    except ConfigurationError as error:
        raise _in_variable("SAFELIGHT_LORAS", error) from None
    except (ModelLoadError, DownloadError):
        if "SAFELIGHT_LORAS" not in deployment.secret_variables:
            raise
        hidden = ConfigurationError("a LoRA cannot be had; which one is not repeated, since a secret says it")
        raise _in_variable("SAFELIGHT_LORAS", hidden) from None


def _in_variable(name: str, error: ConfigurationError) -> ConfigurationError:
    return ConfigurationError(f"environment variable {name} of the deployment: {error.message}")


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
