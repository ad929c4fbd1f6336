"""Deployments that a newer version has written, in a database that older gateways use too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from safelight.control.endpoints.deployments import get_deployment
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database
from safelight.control.store.gateways import Role, Standing
from safelight.control.store.tables import OperationStatus
from safelight.errors import NotReady
from tests.fakes import until
from tests.unit.control.fake_serving import FakeStarter
from tests.unit.control.world import BLUE, Run, World, running

NEWER: Mapping[str, Mapping[str, object]] = {
    "a field": {"watermark": "ours"},
    "a field in a part": {"liveness_probe": {"failure_threshold": 3, "backoff_s": 2}},
    "a number that was out of bounds": {"instance_count": 1000},
    "another type": {"request_timeout_s": {"edits": 60, "pictures": 30}},
}


def write_as_newer(world: World, changes: Mapping[str, object], applied_by: str = "newer") -> None:
    """A newer gateway deploys `blue` so."""
    with world.database.transaction() as session:
        row = get_deployment(session, "flux", "blue")
        row.desired = row.applied = {**(row.applied or {}), **changes}
        row.applied_by = applied_by


@pytest.mark.parametrize("changes", NEWER.values(), ids=NEWER)
def test_a_server_starts_over_what_it_cannot_read_and_says_what_that_is(
    run: Run, changes: Mapping[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    async def deploy(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        await world.put_deployment(replace(BLUE, name="green"))
        write_as_newer(world, changes)

    async def start(world: World) -> None:
        await until(lambda: "green" in world.routes.serving("flux"))
        assert "blue" not in world.routes.serving("flux")
        with pytest.raises(NotReady, match="a newer version of Safelight deployed it"):
            world.reconciler._transactions.plan("flux", "blue")

    run(deploy)
    run(start)

    (told,) = {each.message for each in caplog.records if "deployment flux/blue" in each.message}
    assert next(iter(changes)) in told
    assert "update this gateway" in told


@pytest.mark.parametrize("changes", NEWER.values(), ids=NEWER)
def test_a_gateway_that_follows_goes_on_with_what_it_has_and_with_what_it_can_read_next(
    database: Database, cipher: Cipher, tmp_path: Path, changes: Mapping[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    standing, starter = Standing(1, Role.LEADER, frozenset({1, 2})), FakeStarter()

    async def scenario() -> None:
        async with running(database, cipher, tmp_path, starter, standing) as world:
            await world.put_endpoint()
            await world.put_deployment()
            standing.role = Role.FOLLOWER
            write_as_newer(world, changes)
            for _ in range(3):
                world.reconciler.wake()
                await until(lambda: world.reconciler._marks["flux", "blue"] == "newer")
            assert world.routes.serving("flux")["blue"] is starter.started[0]

            with database.transaction() as session:
                row = get_deployment(session, "flux", "blue")
                row.applied, row.applied_by = row_of(world), "again"
            world.reconciler.wake()
            await until(lambda: len(starter.started) == 2)
            await until(lambda: world.routes.serving("flux")["blue"] is starter.started[1])

    asyncio.run(scenario())
    assert sum("deployment flux/blue: a newer" in each.message for each in caplog.records) == 1


def test_what_is_empty_in_a_field_of_a_newer_version_asks_for_nothing(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        write_as_newer(world, {"watermark": None, "tiles": [], "is_traced": False, "note": ""})

    async def start(world: World) -> None:
        await until(lambda: "blue" in world.routes.serving("flux"))

    run(scenario)
    run(start)


def test_an_operation_on_what_cannot_be_read_fails_and_says_so(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        original = world.reconciler._transactions.plan

        def plan(endpoint: str, name: str) -> object:
            write_as_newer(world, {"watermark": "ours"})
            return original(endpoint, name)

        world.reconciler._transactions.plan = plan  # type: ignore[method-assign, assignment]
        operation = await world.put_deployment()

        assert operation.status is OperationStatus.FAILED
        assert "watermark" in (operation.error_message or "")
        assert world.routes.serving("flux")["blue"] is world.starter.started[0]

    run(scenario)


def row_of(world: World) -> dict[str, object]:
    """What this version writes of `blue`."""
    told: dict[str, object] = msgspec.to_builtins(world.starter.started[0].deployment.spec)
    return told
