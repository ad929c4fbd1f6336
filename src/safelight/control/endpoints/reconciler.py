"""Makes replicas match the database: takes up operations in progress, and after a restart brings back what served.

    operation in the database -> plan (model, secrets) -> fetch -> start -> publish -> record -> stop what was before

Each step may be repeated: a server that is killed anywhere finds the operation still in progress and takes it up again,
with what was applied before serving until the new replicas are ready. Serving is seen through two Protocols.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Generic, ParamSpec, Protocol, TypeVar

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from safelight.control.endpoints.deployments import AppliedDeployment
from safelight.control.endpoints.logs import DeploymentLog, DeploymentLogs
from safelight.control.endpoints.transactions import EndpointState, Transactions
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database
from safelight.control.store.tables import Operation, OperationKind
from safelight.errors import EngineFailure, SafelightError, StorageUnavailable, UnsupportedModel
from safelight.model.catalog import Model

logger = logging.getLogger(__name__)

RETRY_S = 5.0
RETRY_LOST_S = 60.0
"""A machine that has just started may need a while until its devices or its memory are there."""
_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""Of a database that waiting may bring back: the third is PostgreSQL's when it may only be read. Others are bugs."""


class Serving(Protocol):
    """The replicas of one deployment."""

    async def stop(self) -> None:
        """Finish what was admitted, then end."""


P = ParamSpec("P")
T = TypeVar("T")
ServingT = TypeVar("ServingT", bound=Serving)
ServingT_co = TypeVar("ServingT_co", bound=Serving, covariant=True)
ServingT_contra = TypeVar("ServingT_contra", bound=Serving, contravariant=True)


class ReplicaStarter(Protocol[ServingT_co]):
    """What the reconciler asks of serving. Both raise SafelightError."""

    async def fetch(self, model: Model, environment: Mapping[str, str], log: DeploymentLog) -> Path:
        """The folder of a model that may have to be downloaded."""

    async def start(self, deployment: AppliedDeployment, log: DeploymentLog) -> ServingT_co:
        """Replicas that are ready to serve."""


class Routes(Protocol[ServingT_contra]):
    """Where requests find endpoints."""

    def publish(self, endpoint: EndpointState, serving: Mapping[str, ServingT_contra]) -> None:
        """From now on requests for the endpoint go to these deployments."""

    def remove(self, endpoint_name: str) -> None: ...


class Reconciler(Generic[ServingT]):
    """Owns every replica of every endpoint, and the tasks that start and stop them."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        *,
        starter: ReplicaStarter[ServingT],
        routes: Routes[ServingT],
        logs: DeploymentLogs,
    ) -> None:
        self._database = database
        self._transactions = Transactions(database, cipher, logs)
        self._starter = starter
        self._routes = routes
        self._logs = logs
        self._serving: dict[tuple[str, str], ServingT] = {}
        self._leaving: set[ServingT] = set()
        """Replaced, and finishing what they have."""
        self._restoring: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._lost: dict[tuple[str, str], AppliedDeployment] = {}
        """What served before a restart and could not be brought back yet, but may be: its files have not changed."""
        self._taken_up: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._publishing = asyncio.Lock()
        """What is read first is published first."""

    async def start(self) -> None:
        """Publish every endpoint, begin to bring back what served, and take up what was in progress."""
        for state in await self._database.run(self._transactions.read_endpoints):
            self._routes.publish(state, {})
        try:
            self._begin(await self._database.run(self._transactions.read_what_served))
        except StorageUnavailable:  # who read which secret cannot be written down, so none is read
            self._spawn(self._begin_later())

    def wake(self) -> None:
        """There is a new operation in the database."""
        self._changed.set()

    async def wait_until_restored(self) -> None:
        """Until everything that served before has been tried once."""
        await asyncio.gather(*self._restoring.values())

    async def stop(self) -> None:
        """End all tasks and replicas. Operations in progress stay so; the next start takes them up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(serving.stop() for serving in {*self._serving.values(), *self._leaving}))
        self._serving.clear()

    async def publish(self, endpoint_name: str) -> None:
        """Tell the data plane what the database says about an endpoint: its traffic and its keys."""
        async with self._publishing:
            state = await self._transact(self._transactions.read_endpoint, endpoint_name)
            serving = {name: each for (endpoint, name), each in self._serving.items() if endpoint == state.name}
            self._routes.publish(state, serving)

    def _begin(self, served: Sequence[AppliedDeployment]) -> None:
        for applied in served:
            key = (applied.endpoint_name, applied.name)
            self._restoring[key] = self._spawn(self._restore(applied, "the server has started again"))
        self._spawn(self._retry_lost())
        self._spawn(self._take_up_operations())

    async def _begin_later(self) -> None:
        self._begin(await self._transact(self._transactions.read_what_served))

    async def _transact(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One transaction in a thread, begun again until the database takes it: what replicas did cannot be undone."""
        while True:
            try:
                return await self._database.run(work, *args, **kwargs)
            except StorageUnavailable:  # the log has it
                await asyncio.sleep(RETRY_S)
            except _AWAY:
                logger.exception("the database cannot be used; trying again in %g s", RETRY_S)
                await asyncio.sleep(RETRY_S)

    async def _take_up_operations(self) -> None:
        while True:
            self._changed.clear()
            for operation in await self._transact(self._transactions.read_operations):
                if operation.id not in self._taken_up:
                    self._taken_up.add(operation.id)
                    self._spawn(self._carry_out(operation))
            await self._changed.wait()

    async def _carry_out(self, operation: Operation) -> None:
        """One operation from its row to its end. Whatever happens, it has an end."""
        try:
            await self._apply(operation)
        except SafelightError as error:
            await self._give_up(operation, error)
        except Exception:  # a bug too: an operation without an end keeps its endpoint locked (409) until a restart
            logger.exception("operation %s on endpoint %s", operation.id, operation.endpoint_name)
            await self._give_up(operation, EngineFailure("an internal error; see the server's log"))
        finally:
            self._taken_up.discard(operation.id)

    async def _give_up(self, operation: Operation, error: SafelightError) -> None:
        """Say why an operation failed, and record it."""
        endpoint_name, name = operation.endpoint_name, operation.deployment_name
        if name is not None:
            log = self._logs.of(endpoint_name, name)
            log.write(f"{operation.kind} failed: {error.message}")
            if (endpoint_name, name) in self._serving:
                log.write("what was deployed before keeps serving")
        await self._transact(self._transactions.record_failure, operation, error)

    async def _apply(self, operation: Operation) -> None:
        endpoint_name, name = operation.endpoint_name, operation.deployment_name
        if name is None:
            if operation.kind is OperationKind.DELETE:
                await self._delete_endpoint(operation)
            else:
                await self.publish(endpoint_name)
                await self._transact(self._transactions.record_endpoint, operation)
            return
        key = (endpoint_name, name)
        while (restoring := self._restoring.pop(key, None)) is not None:
            await restoring
        lost = self._lost.pop(key, None)
        try:
            if operation.kind is OperationKind.DELETE:
                await self._delete_deployment(operation, name)
            else:
                await self._deploy(operation, name)
        except Exception:
            if lost is not None and key not in self._serving:
                self._lost[key] = lost
            raise

    async def _deploy(self, operation: Operation, name: str) -> None:
        """Start new replicas, switch to them, then end the old ones: no request fails in between."""
        endpoint_name = operation.endpoint_name
        log = self._logs.of(endpoint_name, name)
        plan = await self._transact(self._transactions.plan, endpoint_name, name)
        log.write(f"{operation.kind} of deployment '{name}' with {plan.model.uri}", "StorageInitializer")
        folder = plan.model.folder or await self._starter.fetch(plan.model, plan.environment, log)
        applied = AppliedDeployment(
            endpoint_name=endpoint_name, name=name, spec=plan.spec, folder=folder, environment=plan.environment
        )
        serving = await self._starter.start(applied, log)
        before = await self._switch(operation, applied, serving)
        log.write("ready")
        if before is not None:
            await before.stop()
            self._leaving.discard(before)

    async def _switch(self, operation: Operation, applied: AppliedDeployment, serving: ServingT) -> ServingT | None:
        """Publish and record the new replicas; those that were before are returned, still serving what they have."""
        key = (applied.endpoint_name, applied.name)
        before = self._serving.get(key)
        self._serving[key] = serving
        if before is not None:
            self._leaving.add(before)
        await self.publish(applied.endpoint_name)
        await self._transact(self._transactions.record_deployment, operation, applied)
        return before

    async def _restore(self, applied: AppliedDeployment, why: str) -> None:
        """Bring back a deployment that served before a restart; needs neither network nor connection."""
        log = self._logs.of(applied.endpoint_name, applied.name)
        log.write(why)
        try:
            serving = await self._starter.start(applied, log)
        except SafelightError as error:
            logger.error("deployment %s/%s: %s", applied.endpoint_name, applied.name, error.message)
            log.write(f"failed: {error.message}")
            await self._transact(self._transactions.record_lost, applied, error)
            if not isinstance(error, UnsupportedModel):
                self._lost[applied.endpoint_name, applied.name] = applied
            return
        self._serving[applied.endpoint_name, applied.name] = serving
        await self.publish(applied.endpoint_name)
        await self._transact(self._transactions.record_found, applied)
        log.write("ready")

    async def _retry_lost(self) -> None:
        """What could not be brought back is tried again, until it is there or an operation takes its place."""
        while True:
            await asyncio.sleep(RETRY_LOST_S)
            for key, applied in [*self._lost.items()]:
                del self._lost[key]
                self._restoring[key] = self._spawn(self._restore(applied, "trying again"))

    async def _delete_deployment(self, operation: Operation, name: str) -> None:
        serving = self._serving.pop((operation.endpoint_name, name), None)
        await self.publish(operation.endpoint_name)
        if serving is not None:
            await serving.stop()
        await self._transact(self._transactions.forget_deployment, operation, name)
        self._logs.of(operation.endpoint_name, name).delete()

    async def _delete_endpoint(self, operation: Operation) -> None:
        name = operation.endpoint_name
        self._routes.remove(name)
        while restoring := [task for key, task in self._restoring.items() if key[0] == name and not task.done()]:
            await asyncio.gather(*restoring)
        self._lost = {key: applied for key, applied in self._lost.items() if key[0] != name}
        self._routes.remove(name)
        keys = [key for key in self._serving if key[0] == name]
        await asyncio.gather(*(self._serving.pop(key).stop() for key in keys))
        async with self._publishing:
            await self._transact(self._transactions.forget_endpoint, operation)
            self._routes.remove(name)  # new keys may have published it meanwhile

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
