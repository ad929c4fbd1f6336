"""A database that is away for a while: the reconciler begins its transactions again until they are taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError
from sqlalchemy.orm import Session

from safelight.control.endpoints import reconciler
from safelight.control.endpoints.deployments import delete_deployment
from safelight.control.store.tables import OperationStatus
from safelight.errors import ModelLoadError
from tests.fakes import until
from tests.unit.control.world import Run, World


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is at once, and not after 5 s; a reconciler reads it when it is made."""
    monkeypatch.setattr(reconciler, "RETRY_S", 0.01)


@contextmanager
def refusing(*numbers: int, error: type[DBAPIError] = OperationalError) -> Iterator[list[Session]]:
    """The database refuses these transactions of the reconciler, counted from 1; those that came are yielded."""
    came: list[Session] = []

    def refuse(session: Session) -> None:
        if threading.current_thread() is not threading.main_thread():
            came.append(session)
            if len(came) in numbers:
                raise error("UPDATE", {}, OSError("the disk is full"))

    event.listen(Session, "before_commit", refuse)
    try:
        yield came
    finally:
        event.remove(Session, "before_commit", refuse)


@pytest.mark.parametrize("error", [OperationalError, InternalError])
def test_a_failure_that_the_database_does_not_take_at_once_is_recorded_later(run: Run, error: type[DBAPIError]) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        world.starter.fails_with = ModelLoadError("vae/config.json is missing")
        with refusing(3, 4, error=error) as transactions:
            operation = await world.put_deployment()

        assert (operation.status, operation.error_message) == (OperationStatus.FAILED, "vae/config.json is missing")
        assert len(transactions) == 5
        assert world.logs.of("flux", "blue").read().count("vae/config.json is missing") == 1

    run(scenario)


@pytest.mark.parametrize("refused", range(1, 5))
def test_an_update_is_finished_whichever_transaction_the_database_refuses_at_first(run: Run, refused: int) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        with refusing(refused) as transactions:
            operation = await world.put_deployment()

        before, after = world.starter.started
        assert operation.status is OperationStatus.SUCCEEDED
        assert world.routes.serving("flux") == {"blue": after}
        await until(lambda: before.is_stopped)
        assert len(transactions) >= 5

    run(scenario)


@pytest.mark.parametrize("refused", range(1, 4))
def test_a_deletion_is_finished_whichever_transaction_the_database_refuses_at_first(run: Run, refused: int) -> None:
    async def scenario(world: World) -> None:
        await world.put_endpoint()
        await world.put_deployment()
        with refusing(refused) as transactions:
            operation = await world.do(lambda session: delete_deployment(session, "flux", "blue"))

        (serving,) = world.starter.started
        assert operation.status is OperationStatus.SUCCEEDED
        assert world.routes.serving("flux") == {}
        assert serving.is_stopped
        assert len(transactions) >= 4  # a look for what there is to do may come between

    run(scenario)
