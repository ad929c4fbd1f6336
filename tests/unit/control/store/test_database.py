from __future__ import annotations

import asyncio
import stat
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from safelight.control.store.database import Database, open_database
from safelight.control.store.tables import Base, RegisteredModel
from safelight.disk import Disk
from safelight.errors import ConfigurationError
from tests.fakes import DEADLINE_S


def test_the_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    with database.transaction() as session:
        differences = compare_metadata(MigrationContext.configure(session.connection()), Base.metadata)

    assert differences == []


def test_migrating_twice_changes_nothing(database: Database) -> None:
    database.migrate()

    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_an_error_of_the_database_repeats_nothing_of_what_was_to_be_written(database: Database) -> None:
    def write_twice() -> None:
        for _ in range(2):
            with database.transaction() as session:
                session.add(RegisteredModel(name="mine", version="1", path="hf_secret"))

    with pytest.raises(IntegrityError) as caught:
        write_twice()

    assert "hf_secret" not in str(caught.value)


def test_a_transaction_that_fails_leaves_nothing_behind(database: Database) -> None:
    def fail_half_way() -> None:
        with database.transaction() as session:
            session.add(RegisteredModel(name="mine", version="1", path="/models/mine"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()

    with database.transaction() as session:
        assert session.get(RegisteredModel, ("mine", "1")) is None


def test_writers_wait_for_each_other_instead_of_failing(database: Database) -> None:
    def write(version: int) -> None:
        with database.transaction() as session:
            _ = session.scalars(text("SELECT name FROM models")).all()
            session.add(RegisteredModel(name="mine", version=str(version), path="/models/mine"))

    threads = [threading.Thread(target=write, args=(version,)) for version in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM models")) == 8


def test_sqlite_writes_ahead(tmp_path: Path) -> None:
    database = open_database(None, tmp_path / "data")

    with database.transaction() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
    database.close()


def test_a_database_is_for_its_owner_alone_whoever_may_read_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    database = open_database(None, tmp_path)

    with database.transaction():
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("safelight.db", "safelight.db-shm", "safelight.db-wal"), 0o600)
    database.close()


def test_a_database_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("this is no database, it is a text that is long enough to tell")

    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_database(f"sqlite:///{tmp_path / 'file'}", tmp_path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("safelight", "is no URL of a database"),
        ("postgresql://me:s3c:ret@host:port/name", "is no URL of a database"),
        ("mysql://me:s3cret@host/name", "begins with mysql; use postgresql or sqlite"),
        ("postgresql+nothing://me:s3cret@host/name", r"no driver for postgresql\+nothing"),
        (
            "postgresql://127.0.0.1:1/name?user=me&password=s3cret",
            r"at postgresql\+psycopg://127.0.0.1:1/name cannot be",
        ),
        ("sqlite:///name?timeout=s3cret", "has an option"),
        ("postgresql://me:s3cret@no..host/name", r"at postgresql\+psycopg://me:\*\*\*@no..host/name cannot"),
        ("postgresql://me:s3c\udcffret@127.0.0.1/name", r"at postgresql\+psycopg://me:\*\*\*@127.0.0.1/name cannot"),
        ("postgresql://me:p@s3cret@127.0.0.1/name", "is no URL of a database"),
        ("postgresql://me:p@s3cret/s3c@127.0.0.1/name", "is no URL of a database"),
        ("postgresql://me:p@127.0.0.1:1/s3c@127.0.0.1/name", "is no URL of a database"),
        ("postgresql://me:p?#@s3cret:@127.0.0.1/name", "is no URL of a database"),
        (
            "postgresql://me:s3c%40ret%2F@127.0.0.1:1/name",
            r"at postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/name cannot",
        ),
    ],
)
def test_a_url_that_leads_to_no_database_is_refused_without_its_password(
    tmp_path: Path, url: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as refusal:
        open_database(url, tmp_path)

    assert "s3c" not in refusal.value.message
    assert "\n" not in refusal.value.message
    assert "sqlalche.me" not in refusal.value.message


def test_a_data_directory_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100%#"

    open_database(None, folder).close()

    assert (folder / "safelight.db").exists()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("options", ["", "?connect_timeout=3"])
def test_a_postgresql_that_does_not_answer_is_not_waited_for_without_end(options: str) -> None:
    pytest.importorskip("psycopg")

    database = Database(f"postgresql://u:p@127.0.0.1:1/x{options}", Disk())

    assert int(str(database._engine.url.query["connect_timeout"])) == (3 if options else 10)
    database.close()


def test_transactions_that_wait_keep_nobody_elses_threads(database: Database) -> None:
    locked = threading.Event()

    async def run() -> str:
        waiting = [asyncio.ensure_future(database.run(locked.wait)) for _ in range(100)]
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: "done"), DEADLINE_S)
        finally:
            locked.set()
            await asyncio.gather(*waiting)

    assert asyncio.run(run()) == "done"
