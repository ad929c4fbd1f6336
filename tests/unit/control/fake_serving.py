"""Serving as the reconciler sees it, without processes: what is started and stopped, and what requests would reach."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safelight.control.endpoints.deployments import AppliedDeployment
from safelight.control.endpoints.logs import DeploymentLog
from safelight.control.endpoints.transactions import EndpointState
from safelight.errors import SafelightError
from safelight.model.catalog import Model


@dataclass(eq=False)
class FakeServing:
    """Replicas of one deployment."""

    deployment: AppliedDeployment
    is_stopped: bool = False
    may_stop: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_stop.set()

    async def stop(self) -> None:
        await self.may_stop.wait()
        self.is_stopped = True


@dataclass(eq=False)
class FakeStarter:
    """Starts at once, unless told to wait or to fail."""

    folder: Path = Path("/models/tiny")
    fetched: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    revisions: list[str | None] = field(default_factory=list)
    """Of what was fetched."""
    started: list[FakeServing] = field(default_factory=list)
    fails_with: SafelightError | None = None
    may_start: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_start.set()

    async def fetch(self, model: Model, environment: Mapping[str, str], log: DeploymentLog) -> Path:
        self.fetched.append((model.name, environment))
        self.revisions.append(model.revision)
        log.write("fetched", "StorageInitializer")
        return self.folder

    async def start(self, deployment: AppliedDeployment, log: DeploymentLog) -> FakeServing:
        await self.may_start.wait()
        if self.fails_with is not None:
            raise self.fails_with
        serving = FakeServing(deployment)
        self.started.append(serving)
        return serving


@dataclass(eq=False)
class FakeRoutes:
    """What is published now."""

    endpoints: dict[str, tuple[EndpointState, Mapping[str, FakeServing]]] = field(default_factory=dict)

    def publish(self, endpoint: EndpointState, serving: Mapping[str, FakeServing]) -> None:
        assert not any(each.is_stopped for each in serving.values()), "a stopped deployment gets requests"
        self.endpoints[endpoint.name] = (endpoint, dict(serving))

    def remove(self, endpoint_name: str) -> None:
        self.endpoints.pop(endpoint_name, None)

    def serving(self, endpoint_name: str) -> Mapping[str, FakeServing]:
        return self.endpoints[endpoint_name][1]
