from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from safelight.control.endpoints.logs import DeploymentLogs
from safelight.control.endpoints.operations import list_operations_in_progress
from safelight.control.endpoints.reconciler import Reconciler
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database
from safelight.control.store.tables import Deployment, Endpoint
from safelight.disk import Disk
from tests.fakes import until
from tests.unit.control.fake_serving import FakeRoutes, FakeServing, FakeStarter
from tests.unit.control.kill_points import KEY, is_done, make_change, run_and_die

BEFORE = {
    "create endpoint": [],
    "create deployment": ["create endpoint"],
    "update deployment": ["create endpoint", "create deployment"],
    "update endpoint": ["create endpoint", "create deployment"],
    "delete deployment": ["create endpoint", "create deployment"],
    "delete endpoint": ["create endpoint", "create deployment"],
}


async def _restart(folder: Path, *changes: str) -> object:
    """Start over the database, make changes, wait until nothing is in progress: what there is then, and what serves."""
    database, routes = Database(f"sqlite:///{folder / 'safelight.db'}", Disk()), FakeRoutes()
    reconciler = Reconciler[FakeServing](
        database, Cipher([KEY]), starter=FakeStarter(), routes=routes, logs=DeploymentLogs(folder / "logs")
    )
    await reconciler.start()
    await reconciler.wait_until_restored()
    await until(lambda: _is_idle(database))
    for change in changes:
        operation_id = make_change(database, change)
        reconciler.wake()
        await until(partial(is_done, database, operation_id))
    state = _state(database, routes)
    await reconciler.stop()
    database.close()
    return state


def _is_idle(database: Database) -> bool:
    with database.transaction() as session:
        return not list_operations_in_progress(session)


def _state(database: Database, routes: FakeRoutes) -> object:
    with database.transaction() as session:
        endpoints = [(row.name, row.provisioning_state, row.traffic) for row in session.scalars(select(Endpoint))]
        deployments = [
            (row.name, row.provisioning_state, row.desired, row.applied, row.applied_folder)
            for row in session.scalars(select(Deployment))
        ]
    published = [
        (name, state.traffic, [(each, serving.deployment.spec) for each, serving in by_name.items()])
        for name, (state, by_name) in routes.endpoints.items()
    ]
    return endpoints, deployments, published


@pytest.mark.parametrize("change", BEFORE)
def test_killed_at_any_step_the_state_is_the_one_before_or_after(tmp_path: Path, change: str) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    Database(f"sqlite:///{origin / 'safelight.db'}", Disk()).migrate()
    before = asyncio.run(_restart(origin, *BEFORE[change]))
    after_folder = Path(shutil.copytree(origin, tmp_path / "after"))
    after = asyncio.run(_restart(after_folder, change))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.unit.control.kill_points"])
    seen = []

    for kill_at in range(1, 100):
        folder = Path(shutil.copytree(origin, tmp_path / f"killed-at-{kill_at}"))
        child = processes.Process(target=run_and_die, args=(folder, change, kill_at))
        child.start()
        child.join()
        state = asyncio.run(_restart(folder))
        seen.append(state)
        assert state in (before, after), f"between, when killed at step {kill_at}"
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL

    assert seen[0] == before
    assert seen[-1] == after
    assert before != after
    assert len(seen) >= 8
