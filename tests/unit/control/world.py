"""A database, the reconciler over it, and the fakes that it works with: what tests of the reconciler play in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from safelight.control.endpoints.deployments import DeploymentBody, DeploymentSpec, get_deployment, put_deployment
from safelight.control.endpoints.endpoints import EndpointSpec, put_endpoint
from safelight.control.endpoints.logs import DeploymentLogs
from safelight.control.endpoints.operations import get_operation
from safelight.control.endpoints.reconciler import Reconciler
from safelight.control.secrets.encryption import Cipher
from safelight.control.secrets.secret_references import ENFORCE_ACCESS
from safelight.control.store.database import Database
from safelight.control.store.gateways import Standing
from safelight.control.store.tables import Operation, OperationStatus, ProvisioningState
from tests.fakes import DEADLINE_S
from tests.unit.control.fake_serving import FakeRoutes, FakeServing, FakeStarter
from tests.waiting import pauses

FLUX = EndpointSpec(name="flux", properties={ENFORCE_ACCESS: "enabled"})
BLUE = DeploymentBody(endpoint_name="flux", name="blue", spec=DeploymentSpec(model="sprite"))
GATED = DeploymentBody(endpoint_name="flux", name="blue", spec=DeploymentSpec(model="black-forest-labs/FLUX.1-schnell"))


@dataclass
class World:
    """A database, the reconciler over it, and the fakes that it works with."""

    database: Database
    cipher: Cipher
    logs: DeploymentLogs
    starter: FakeStarter
    routes: FakeRoutes
    reconciler: Reconciler[FakeServing]

    async def do(self, change: Callable[[Session], Operation | None]) -> Operation:
        """A change and the operation that follows from it, to its end."""
        with self.database.transaction() as session:
            operation = change(session)
        assert operation is not None
        self.reconciler.wake()
        async with asyncio.timeout(DEADLINE_S):
            for pause_s in pauses():  # each question locks the database for a while
                if self.operation(operation.id).status is not OperationStatus.IN_PROGRESS:
                    break
                await asyncio.sleep(pause_s)
        return self.operation(operation.id)

    def operation(self, id: str) -> Operation:
        with self.database.transaction() as session:
            return get_operation(session, id)

    def shown(self) -> tuple[ProvisioningState, str | None]:
        """How `blue` stands."""
        with self.database.transaction() as session:
            deployment = get_deployment(session, "flux", "blue")
            return deployment.provisioning_state, deployment.error_message

    async def put_endpoint(self, spec: EndpointSpec = FLUX) -> Operation:
        return await self.do(lambda session: put_endpoint(session, self.cipher, spec)[1])

    async def put_deployment(self, body: DeploymentBody = BLUE) -> Operation:
        return await self.do(lambda session: put_deployment(session, body)[1])


@asynccontextmanager
async def running(
    database: Database, cipher: Cipher, tmp_path: Path, starter: FakeStarter, standing: Standing | None = None
) -> AsyncIterator[World]:
    logs, routes = DeploymentLogs(tmp_path / "logs"), FakeRoutes()
    reconciler = Reconciler[FakeServing](database, cipher, starter=starter, routes=routes, logs=logs, standing=standing)
    await reconciler.start()
    try:
        yield World(database, cipher, logs, starter, routes, reconciler)
    finally:
        await reconciler.stop()


Run = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]
