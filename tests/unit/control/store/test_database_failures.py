"""What a database says that takes nothing now, and what it says of a mistake of ours."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from safelight.control.store import database as database_module
from safelight.control.store.database import Database, open_database
from safelight.control.store.tables import RegisteredModel
from safelight.disk import Disk
from safelight.errors import StorageUnavailable
from tests.fakes import DEADLINE_S, until
from tests.unit.conftest import emptied


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def postgresql(postgresql_url: str, disk: Disk) -> Iterator[Database]:
    database = Database(emptied(postgresql_url), disk)
    database.migrate()
    yield database
    database.close()


def add_model(session: Session, name: str = "mine") -> None:
    session.add(RegisteredModel(name=name, version="1", path="/models/mine"))


def raising(session: Session, code: str) -> None:
    """From now on the server itself refuses every new model, with this error of its own."""
    session.execute(
        text(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'base/13/7: no space' "
            f"USING ERRCODE = '{code}'; END $$ LANGUAGE plpgsql"
        )
    )
    session.execute(text("CREATE TRIGGER refuse BEFORE INSERT ON models EXECUTE FUNCTION refuse()"))


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("53100", "its disk is full"),
        ("53200", "it has run out of resources"),
        ("25006", "it may only be read"),
        ("42501", "the user of its URL may not use it so"),
        ("40P01", "two changes waited for each other"),
        ("57P03", "it is being stopped or started"),
        ("58030", "its disk fails"),
    ],
)
def test_postgresql_that_takes_nothing_is_told_by_its_cause_and_not_in_its_words(
    postgresql: Database, disk: Disk, caplog: pytest.LogCaptureFixture, code: str, cause: str
) -> None:
    with postgresql.transaction() as session:
        raising(session, code)

    for _ in range(3):
        with (
            pytest.raises(StorageUnavailable, match=f"^the database takes no writes: {cause};") as refusal,
            postgresql.transaction() as session,
        ):
            add_model(session)
        assert "base/13/7" not in refusal.value.message

    assert disk.trouble == f"the database takes no writes: {cause}"
    assert [each.levelname for each in caplog.records] == ["ERROR"]
    assert "base/13/7: no space" in caplog.text


def test_a_transaction_that_only_reads_does_not_end_the_trouble_and_one_that_writes_does(
    postgresql: Database, disk: Disk
) -> None:
    with postgresql.transaction() as session:
        raising(session, "53100")
    with pytest.raises(StorageUnavailable), postgresql.transaction() as session:
        add_model(session)

    with postgresql.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM models")) == 0
        session.execute(text("DELETE FROM models"))
    assert disk.trouble is not None

    with postgresql.transaction() as session:
        session.execute(text("DROP TRIGGER refuse ON models"))
        add_model(session)
    assert disk.trouble is None


def test_postgresql_that_ends_the_connection_is_away(postgresql: Database, disk: Disk) -> None:
    with pytest.raises(StorageUnavailable, match="it is being stopped or started"), postgresql.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with postgresql.transaction() as session:
        add_model(session)
    assert disk.trouble is None


def test_sqlite_that_something_else_keeps_locked_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 1)
    database = open_database(None, tmp_path)
    with closing(sqlite3.connect(tmp_path / "safelight.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StorageUnavailable, match="something else keeps it locked"), database.transaction():
            pass
    database.close()


@pytest.mark.parametrize("statement", ["SELECT nothing", "SELEKT 1", "INSERT INTO nowhere VALUES (1)"])
def test_a_mistake_of_ours_is_no_full_disk(database: Database, statement: str) -> None:
    with pytest.raises(SQLAlchemyError) as caught, database.transaction() as session:
        session.execute(text(statement))

    assert not isinstance(caught.value, StorageUnavailable)


def test_a_database_that_is_damaged_is_no_full_disk(tmp_path: Path) -> None:
    database = open_database(None, tmp_path)
    database.close()
    (tmp_path / "safelight.db").write_bytes(b"x" * 8192)

    with pytest.raises(SQLAlchemyError) as caught, database.transaction() as session:
        add_model(session)

    assert not isinstance(caught.value, OperationalError)


def test_a_connection_that_is_in_use_when_the_database_is_closed_is_closed_when_it_is_free(
    postgresql: Database,
) -> None:
    """What is left to the garbage collector warns of it, in the midst of something else."""
    begun, may_end, closed = threading.Event(), threading.Event(), threading.Event()
    event.listen(postgresql._engine, "close", lambda *_: closed.set())

    def work() -> None:
        with postgresql.transaction() as session:
            session.execute(text("SELECT 1"))
            begun.set()
            may_end.wait(DEADLINE_S)

    async def close_meanwhile() -> None:
        working = asyncio.create_task(postgresql.run(work))
        await until(begun.is_set)
        postgresql.close()
        closed.clear()
        may_end.set()
        await working

    asyncio.run(close_meanwhile())

    assert closed.wait(DEADLINE_S)
