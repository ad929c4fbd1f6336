"""A control plane's database in both kinds: a SQLite file and a PostgreSQL server from a wheel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from safelight.control.secrets.encryption import Cipher, generate_key
from safelight.control.store.database import Database
from safelight.disk import Disk
from tests.checkpoint_files import write_checkpoint
from tests.postgresql import postgresql_server
from tests.unit.control.fake_serving import FakeStarter
from tests.unit.control.world import Run, World, running


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL server of this test session."""
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'safelight.db'}"
    else:
        url = emptied(request.getfixturevalue("postgresql_url"))
    database = Database(url, Disk())
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def cipher() -> Cipher:
    return Cipher([generate_key()])


@pytest.fixture
def run(database: Database, cipher: Cipher, tmp_path: Path) -> Run:
    """Runs a scenario with a fresh reconciler; call it again for a restart."""

    def run(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with running(database, cipher, tmp_path, FakeStarter()) as world:
                await scenario(world)

        asyncio.run(main())

    return run


def emptied(url: str) -> str:
    """The URL, when nothing is in its database."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """What tells that a folder holds a FLUX.1 checkpoint, with empty weights."""
    return write_checkpoint(tmp_path / "tiny")
