"""A leader that finds another one leading puts its operations down, and loses nothing of its own over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from safelight.control.endpoints.deployments import delete_deployment, put_deployment
from safelight.control.endpoints.endpoints import delete_endpoint
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database
from safelight.control.store.gateways import Role, Standing
from safelight.control.store.tables import Operation
from tests.fakes import until
from tests.unit.control.fake_serving import FakeStarter
from tests.unit.control.world import BLUE, World, running

ALONE = frozenset({1})


def begin(world: World, change: Callable[[Session], Operation | None]) -> None:
    with world.database.transaction() as session:
        change(session)
    world.reconciler.wake()


@pytest.mark.parametrize(
    "deletion",
    [lambda session: delete_deployment(session, "flux", "blue"), lambda session: delete_endpoint(session, "flux")],
    ids=["of the deployment", "of the endpoint"],
)
def test_replicas_that_a_deletion_was_stopping_are_stopped_all_the_same_and_others_serve_meanwhile(
    database: Database, cipher: Cipher, tmp_path: Path, deletion: Callable[[Session], Operation | None]
) -> None:
    standing, starter = Standing(1, Role.LEADER, ALONE), FakeStarter()

    async def scenario() -> None:
        async with running(database, cipher, tmp_path, starter, standing) as world:
            await world.put_endpoint()
            await world.put_deployment()
            before = starter.started[0]
            before.may_stop.clear()
            begin(world, deletion)
            await until(lambda: not world.routes.endpoints or not world.routes.serving("flux"))

            standing.role = Role.FOLLOWER
            world.reconciler.wake()
            await until(lambda: bool(world.routes.endpoints) and bool(world.routes.serving("flux")))
            before.may_stop.set()

            await until(lambda: before.is_stopped)
            assert not starter.started[1].is_stopped

    asyncio.run(scenario())


def test_what_was_being_brought_back_when_an_operation_waited_for_it_comes_back(
    database: Database, cipher: Cipher, tmp_path: Path
) -> None:
    standing, starter = Standing(1, Role.LEADER, ALONE), FakeStarter()

    async def scenario() -> None:
        async with running(database, cipher, tmp_path, starter, standing) as world:
            await world.put_endpoint()
            await world.put_deployment()
        starter.may_start.clear()
        async with running(database, cipher, tmp_path, starter, standing) as world:
            begin(world, lambda session: put_deployment(session, BLUE)[1])
            await until(lambda: bool(world.reconciler._taken_up))
            known = world.routes.endpoints["flux"]

            standing.role = Role.FOLLOWER
            world.reconciler.wake()
            await until(lambda: world.routes.endpoints["flux"] is not known)
            starter.may_start.set()

            await until(lambda: "blue" in world.routes.serving("flux"))

    asyncio.run(scenario())
