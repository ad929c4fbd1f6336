"""Gateways of this process, as far as their dispatchers, before replicas on Ray that draw with FakeEngine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from safelight.serving.backends.protocol import Launch
from safelight.serving.backends.ray.cluster import RayCluster
from safelight.serving.backends.ray.replicas import RayReplicas
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.messages import Load
from safelight.serving.scaling import Scaling
from safelight.settings import EngineOptions, Settings
from tests.fakes import FAKE_SPEC, FakeEngineOptions, fake_command, until


@asynccontextmanager
async def gateway(
    cluster: RayCluster, name: str, options: FakeEngineOptions | None = None, **launch: object
) -> AsyncIterator[Dispatcher]:
    """A gateway before replicas that draw with FakeEngine, all of them ready; it leaves them at the end."""
    async with starting_gateway(cluster, name, options, **launch) as dispatcher:
        await until(lambda: all(each.state == "ready" for each in dispatcher.snapshot().replicas))
        yield dispatcher


@asynccontextmanager
async def starting_gateway(
    cluster: RayCluster,
    name: str,
    options: FakeEngineOptions | None = None,
    *,
    settings: Settings | None = None,
    folder: str = "/nowhere",
    engine: EngineOptions | None = None,
    max_queued: int = 64,
    scaling: Scaling | None = None,
    **launch: object,
) -> AsyncIterator[Dispatcher]:
    load = Load(folder=folder, spec=FAKE_SPEC, options=engine or EngineOptions())
    settings = settings or Settings(runtime="ray")
    replicas = RayReplicas(Launch(name=name, load=load, **launch), settings, cluster, command=fake_command(options))
    dispatcher = Dispatcher(replicas, scaling=scaling, max_queued_requests=max_queued)
    await dispatcher.start()
    try:
        yield dispatcher
    finally:
        await dispatcher.stop()
