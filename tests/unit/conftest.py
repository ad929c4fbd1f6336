"""A control plane's database, as a SQLite file and in a PostgreSQL server from a wheel; and the folder of a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from safelight.control.store.database import Database
from safelight.disk import Disk
from tests.checkpoint_files import write_checkpoint
from tests.postgresql import postgresql_server


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
def model_folder(tmp_path: Path) -> Path:
    """What tells that a folder holds a FLUX.1 checkpoint, with empty weights."""
    return write_checkpoint(tmp_path / "tiny")


def emptied(url: str) -> str:
    """The URL, when nothing is in its database."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url
