"""Makes replicas match the database: takes up operations in progress, and after a restart brings back what served.

    operation in the database -> plan (model, secrets) -> fetch -> start -> publish -> record -> stop what was before

Each step may be repeated: a server that is killed anywhere finds the operation still in progress and takes it up again,
with what was applied before serving until the new replicas are ready. Serving is seen through two Protocols.

Of several gateways each has replicas of its own. The leader carries out operations; the others follow what it recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Generic, ParamSpec, TypeVar

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from safelight.control.endpoints.deployments import AppliedDeployment
from safelight.control.endpoints.logs import DeploymentLog, DeploymentLogs
from safelight.control.endpoints.serving import ReplicaStarter, Routes, Serving
from safelight.control.endpoints.transactions import EndpointMark, Transactions
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database
from safelight.control.store.gateways import Role, Standing
from safelight.control.store.tables import Operation, OperationKind
from safelight.errors import (
    Conflict,
    EngineFailure,
    ResourceNotFound,
    SafelightError,
    StorageUnavailable,
    UnsupportedModel,
)

logger = logging.getLogger(__name__)

RETRY_S = 5.0
RETRY_AMONG_OTHERS_S = 1.0
"""Where others' changes are waited for too."""
RETRY_LOST_S = 60.0
"""A machine that has just started may need a while until its devices or its memory are there."""
_AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""Of a database that waiting may bring back: the third is PostgreSQL's when it may only be read. Others are bugs."""


P = ParamSpec("P")
T = TypeVar("T")
ServingT = TypeVar("ServingT", bound=Serving)


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
        standing: Standing | None = None,
    ) -> None:
        """`standing` of this gateway among several."""
        self._database = database
        self._transactions = Transactions(database, cipher, logs)
        self._starter = starter
        self._routes = routes
        self._logs = logs
        self._standing = standing or Standing()
        self._retry_s = RETRY_S if self._standing.id is None else RETRY_AMONG_OTHERS_S
        self._marks: dict[tuple[str, str], str | None] = {}
        """The operation that applied what serves here, or could not be started here."""
        self._published: dict[str, EndpointMark | None] = {}
        self._serving: dict[tuple[str, str], ServingT] = {}
        self._leaving: set[ServingT] = set()
        """Replaced, and finishing what they have."""
        self._restoring: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._has_begun = self._is_restored = False
        self._lost: dict[tuple[str, str], AppliedDeployment] = {}
        """What served before a restart and could not be brought back yet, but may be: its files have not changed."""
        self._taken_up: dict[str, tuple[Operation, asyncio.Task[None]]] = {}
        """By the operation's id."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._publishing = asyncio.Lock()
        """What is read first is published first."""

    async def start(self) -> None:
        """Publish every endpoint, begin to bring back what served, and take up what was in progress."""
        for state in await self._database.run(self._transactions.read_endpoints):
            self._published[state.name] = None
            self._routes.publish(state, {})
        try:
            self._begin(await self._database.run(self._transactions.read_what_served))
        except StorageUnavailable:  # who read which secret cannot be written down, so none is read
            self._spawn(self._begin_later())

    def wake(self) -> None:
        """There is a new operation in the database, or another gateway has changed something."""
        self._changed.set()

    @property
    def is_restored(self) -> bool:
        """Whether all that served when this gateway started has been tried once."""
        if not self._is_restored and self._has_begun:
            self._is_restored = all(each.done() for each in self._restoring.values())
        return self._is_restored

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
            self._published.setdefault(state.name, None)
            self._routes.publish(state, serving)

    def _begin(self, served: Sequence[AppliedDeployment]) -> None:
        for applied in served:
            key = (applied.endpoint_name, applied.name)
            self._restoring[key] = self._spawn(self._restore(applied, "the server has started again"))
        self._has_begun = True
        self._spawn(self._retry_lost())
        self._spawn(self._reconcile())

    async def _begin_later(self) -> None:
        self._begin(await self._transact(self._transactions.read_what_served))

    async def _transact(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One transaction in a thread, begun again until the database takes it: what replicas did cannot be undone."""
        while True:
            try:
                return await self._database.run(work, *args, **kwargs)
            except StorageUnavailable:  # the log has it
                await asyncio.sleep(self._retry_s)
            except _AWAY:
                logger.exception("the database cannot be used; trying again in %g s", self._retry_s)
                await asyncio.sleep(self._retry_s)

    async def _reconcile(self) -> None:
        while True:
            self._changed.clear()
            if self._standing.role is Role.LEADER:
                await self._take_up_operations()
            elif self._standing.role is Role.FOLLOWER and self._taken_up:
                await self._put_down_operations()
            if self._standing.id is not None:
                await self._follow()
            await self._changed.wait()

    async def _take_up_operations(self) -> None:
        for operation in await self._transact(self._transactions.read_operations):
            if operation.id not in self._taken_up:
                self._taken_up[operation.id] = (operation, self._spawn(self._carry_out(operation)))

    async def _put_down_operations(self) -> None:
        """Another gateway leads now, and does them from the start."""
        taken_up = [*self._taken_up.values()]
        for _, task in taken_up:
            task.cancel()
        await asyncio.gather(*(task for _, task in taken_up), return_exceptions=True)
        for name in {operation.endpoint_name for operation, _ in taken_up}:
            self._published.pop(name, None)
            with suppress(ResourceNotFound):
                await self.publish(name)
        for before in self._leaving:
            self._spawn(self._let_go(before))

    async def _follow(self) -> None:
        """Make this gateway like the database, where another one has changed it."""
        try:
            marks = await self._database.run(self._transactions.read_marks)
        except (StorageUnavailable, *_AWAY):
            return  # the news that it is back come by themselves
        for name in self._published.keys() - marks.endpoints.keys():
            del self._published[name]
            self._routes.remove(name)
        for name, mark in marks.endpoints.items():
            if self._published.get(name) != mark:
                await self._publish_if_there(name)
                self._published[name] = mark
        for key, applied_by in marks.deployments.items():
            if self._marks.get(key, "") != applied_by and not self._is_busy(key):
                self._restoring[key] = self._spawn(self._catch_up(key, applied_by))
        for key in self._serving.keys() - marks.deployments.keys():
            if not self._is_busy(key):
                self._spawn(self._retire(key))

    async def _publish_if_there(self, endpoint_name: str) -> None:
        with suppress(ResourceNotFound):  # the next look finds it gone
            await self.publish(endpoint_name)

    def _is_busy(self, key: tuple[str, str]) -> bool:
        """Whether something is being done here to a deployment already."""
        is_restoring = key in self._restoring and not self._restoring[key].done()
        names = [(each.endpoint_name, each.deployment_name) for each, _ in self._taken_up.values()]
        return is_restoring or key in names or (key[0], None) in names

    async def _catch_up(self, key: tuple[str, str], applied_by: str | None) -> None:
        """Start here what another gateway has deployed; what serves here goes on until that is ready."""
        applied = await self._transact(self._transactions.read_to_follow, *key)
        self._lost.pop(key, None)
        if applied is None:  # it is gone again, or a newer version's: until there is another one
            self._marks[key] = applied_by
        elif applied.applied_by != self._marks.get(key, ""):
            await self._restore(applied, "another gateway has deployed it")

    async def _retire(self, key: tuple[str, str]) -> None:
        """Another gateway has deleted it, unless it became ready here since that was seen."""
        if key in (await self._transact(self._transactions.read_marks)).deployments:
            return
        serving = self._take_away(key)
        self._lost.pop(key, None)
        await self._publish_if_there(key[0])
        if serving is not None:
            await self._let_go(serving)
        self._logs.of(*key).delete()

    def _take_away(self, key: tuple[str, str]) -> ServingT | None:
        """What serves a deployment, to be let go: also when the operation that began to is put down meanwhile."""
        serving = self._serving.pop(key, None)
        self._marks.pop(key, None)
        if serving is not None:
            self._leaving.add(serving)
        return serving

    async def _let_go(self, before: ServingT) -> None:
        await before.stop()
        self._leaving.discard(before)

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
            self._taken_up.pop(operation.id, None)

    async def _give_up(self, operation: Operation, error: SafelightError) -> None:
        """Say why an operation failed, and record it."""
        endpoint_name, name = operation.endpoint_name, operation.deployment_name
        if name is not None:
            log = self._logs.of(endpoint_name, name)
            log.write(f"{operation.kind} failed: {error.message}")
            if (endpoint_name, name) in self._serving:
                log.write("what was deployed before keeps serving")
        with suppress(Conflict):  # another gateway has ended it
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
        while (restoring := self._restoring.get(key)) is not None and not restoring.done():
            await asyncio.wait([restoring])  # it goes on when this operation is put down
        self._restoring.pop(key, None)
        lost = self._lost.pop(key, None)
        try:
            if operation.kind is OperationKind.DELETE:
                await self._delete_deployment(operation, name)
            else:
                await self._deploy(operation, name)
        except (Exception, asyncio.CancelledError):
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
            endpoint_name=endpoint_name,
            name=name,
            spec=plan.spec,
            folder=folder,
            environment=plan.environment,
            applied_by=operation.id,
        )
        serving = await self._starter.start(applied, log)
        before = await self._switch(operation, applied, serving)
        log.write("ready")
        if before is not None:
            await self._let_go(before)

    async def _switch(self, operation: Operation, applied: AppliedDeployment, serving: ServingT) -> ServingT | None:
        """Publish and record the new replicas; those that were before are returned, still serving what they have."""
        before = self._replace(applied, serving)
        await self.publish(applied.endpoint_name)
        with suppress(Conflict):  # another gateway has ended it: what it recorded is followed
            await self._transact(self._transactions.record_deployment, operation, applied)
        return before

    def _replace(self, applied: AppliedDeployment, serving: ServingT) -> ServingT | None:
        key = (applied.endpoint_name, applied.name)
        before = self._serving.get(key)
        self._serving[key] = serving
        self._marks[key] = applied.applied_by
        if before is not None:
            self._leaving.add(before)
        return before

    async def _restore(self, applied: AppliedDeployment, why: str) -> None:
        """Bring back a deployment that served before a restart; needs neither network nor connection."""
        self._marks[applied.endpoint_name, applied.name] = applied.applied_by
        log = self._logs.of(applied.endpoint_name, applied.name)
        log.write(why)
        try:
            serving = await self._starter.start(await self._found_here(applied, log), log)
        except SafelightError as error:
            logger.error("deployment %s/%s: %s", applied.endpoint_name, applied.name, error.message)
            log.write(f"failed: {error.message}")
            if self._standing.role is Role.LEADER:
                await self._transact(self._transactions.record_lost, applied, error)
            if not isinstance(error, UnsupportedModel):
                self._lost[applied.endpoint_name, applied.name] = applied
            return
        before = self._replace(applied, serving)
        await self.publish(applied.endpoint_name)
        if self._standing.role is Role.LEADER:
            await self._transact(self._transactions.record_found, applied)
        log.write("ready")
        if before is not None:
            await self._let_go(before)

    async def _found_here(self, applied: AppliedDeployment, log: DeploymentLog) -> AppliedDeployment:
        """With its files where they are on this machine: another gateway's may have deployed it."""
        if self._standing.id is None or applied.folder.exists():
            return applied
        model = await self._transact(self._transactions.model_of, applied)
        return replace(applied, folder=model.folder or await self._starter.fetch(model, applied.environment, log))

    async def _retry_lost(self) -> None:
        """What could not be brought back is tried again, until it is there or an operation takes its place."""
        while True:
            await asyncio.sleep(RETRY_LOST_S)
            for key, applied in [*self._lost.items()]:
                del self._lost[key]
                self._restoring[key] = self._spawn(self._restore(applied, "trying again"))

    async def _delete_deployment(self, operation: Operation, name: str) -> None:
        serving = self._take_away((operation.endpoint_name, name))
        await self.publish(operation.endpoint_name)
        if serving is not None:
            await self._let_go(serving)
        await self._transact(self._transactions.forget_deployment, operation, name)
        await self._publish_if_there(operation.endpoint_name)  # its name means nothing any more
        self._logs.of(operation.endpoint_name, name).delete()

    async def _delete_endpoint(self, operation: Operation) -> None:
        name = operation.endpoint_name
        self._routes.remove(name)
        while restoring := [task for key, task in self._restoring.items() if key[0] == name and not task.done()]:
            await asyncio.wait(restoring)
        self._lost = {key: applied for key, applied in self._lost.items() if key[0] != name}
        self._routes.remove(name)
        leaving = [self._take_away(key) for key in [*self._marks] if key[0] == name]
        await asyncio.gather(*(self._let_go(each) for each in leaving if each is not None))
        async with self._publishing:
            await self._transact(self._transactions.forget_endpoint, operation)
            self._routes.remove(name)  # new keys may have published it meanwhile

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
