"""A control plane that kills itself at its n-th step, where a step is anything that another process could observe.

Steps are: before and after every commit, every fetch, start and stop of replicas, every publication of routes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.orm import Session

from safelight.control.endpoints.deployments import (
    AppliedDeployment,
    DeploymentBody,
    DeploymentSpec,
    delete_deployment,
    put_deployment,
)
from safelight.control.endpoints.endpoints import EndpointSpec, delete_endpoint, put_endpoint
from safelight.control.endpoints.logs import DeploymentLog, DeploymentLogs
from safelight.control.endpoints.operations import get_operation
from safelight.control.endpoints.reconciler import Reconciler
from safelight.control.endpoints.transactions import EndpointState
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database
from safelight.control.store.tables import Operation, OperationStatus
from safelight.disk import Disk
from safelight.model.catalog import Model
from tests.fakes import until
from tests.unit.control.fake_serving import FakeRoutes, FakeServing, FakeStarter

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def blue(instance_count: int) -> DeploymentBody:
    return DeploymentBody(
        endpoint_name="flux", name="blue", spec=DeploymentSpec(model="org/tiny", instance_count=instance_count)
    )


CHANGES: Mapping[str, Callable[[Session], Operation | None]] = {
    "create endpoint": lambda session: put_endpoint(session, Cipher([KEY]), EndpointSpec(name="flux"))[1],
    "update endpoint": lambda session: put_endpoint(
        session, Cipher([KEY]), EndpointSpec(name="flux", traffic={"blue": 100})
    )[1],
    "delete endpoint": lambda session: delete_endpoint(session, "flux"),
    "create deployment": lambda session: put_deployment(session, blue(1))[1],
    "update deployment": lambda session: put_deployment(session, blue(2))[1],
    "delete deployment": lambda session: delete_deployment(session, "flux", "blue"),
}


class Countdown:
    """Dies by SIGKILL at the n-th step."""

    def __init__(self, kill_at: int) -> None:
        self._steps_left = kill_at

    def step(self, *_: object) -> None:
        self._steps_left -= 1
        if self._steps_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def step_of_thread(self, *_: object) -> None:
        """A transaction of the control plane; this test's own polling is in the main thread and no step."""
        if threading.current_thread() is not threading.main_thread():
            self.step()


class DyingServing(FakeServing):
    """Counts its end."""

    countdown: Countdown

    async def stop(self) -> None:
        self.countdown.step()
        await super().stop()
        self.countdown.step()


class DyingStarter(FakeStarter):
    """Counts fetches and starts."""

    countdown: Countdown

    async def fetch(self, model: Model, environment: Mapping[str, str], log: DeploymentLog) -> Path:
        self.countdown.step()
        folder = await super().fetch(model, environment, log)
        self.countdown.step()
        return folder

    async def start(self, deployment: AppliedDeployment, log: DeploymentLog) -> FakeServing:
        self.countdown.step()
        serving = DyingServing((await super().start(deployment, log)).deployment)
        serving.countdown = self.countdown
        self.countdown.step()
        return serving


class DyingRoutes(FakeRoutes):
    """Counts publications."""

    countdown: Countdown

    def publish(self, endpoint: EndpointState, serving: Mapping[str, FakeServing]) -> None:
        self.countdown.step()
        super().publish(endpoint, serving)
        self.countdown.step()


def run_and_die(folder: Path, change: str, kill_at: int) -> None:
    """Start over the database in `folder`, make the change, and die at a step, or finish with exit status 0."""
    asyncio.run(_run(folder, change, Countdown(kill_at)))


async def _run(folder: Path, change: str, countdown: Countdown) -> None:
    database = Database(f"sqlite:///{folder / 'safelight.db'}", Disk())
    event.listen(Session, "before_commit", countdown.step_of_thread)
    event.listen(Session, "after_commit", countdown.step_of_thread)
    starter, routes = DyingStarter(), DyingRoutes()
    starter.countdown = routes.countdown = countdown
    reconciler = Reconciler[FakeServing](
        database, Cipher([KEY]), starter=starter, routes=routes, logs=DeploymentLogs(folder / "logs")
    )
    await reconciler.start()
    await reconciler.wait_until_restored()
    operation_id = await asyncio.to_thread(make_change, database, change)
    reconciler.wake()
    await until(lambda: is_done(database, operation_id))
    await reconciler.stop()


def make_change(database: Database, change: str) -> str:
    """The id of the operation that follows."""
    with database.transaction() as session:
        operation = CHANGES[change](session)
    assert operation is not None
    return operation.id


def is_done(database: Database, id: str) -> bool:
    with database.transaction() as session:
        return get_operation(session, id).status is not OperationStatus.IN_PROGRESS
