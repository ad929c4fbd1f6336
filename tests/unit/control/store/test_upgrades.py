"""A database that a newer version has migrated, or migrates, while this one uses it: as in each rolling update."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from safelight.control import migrations
from safelight.control.endpoints.deployments import DeploymentSpec
from safelight.control.endpoints.endpoints import EndpointSpec, get_endpoint, put_endpoint
from safelight.control.jobs.records import StoredRequest
from safelight.control.secrets.encryption import Cipher
from safelight.control.store import database as database_module
from safelight.control.store.database import Database, alembic_config
from safelight.control.store.gateways import Gateways, Role
from safelight.control.store.tables import (
    Base,
    JobState,
    NewerWord,
    OperationKind,
    OperationStatus,
    ProvisioningState,
    RegisteredModel,
)
from safelight.disk import Disk
from safelight.errors import ConfigurationError
from tests.fakes import until
from tests.shapes import shape_of
from tests.unit.conftest import emptied

NEWER = "9999"


def migrate_further(database: Database) -> None:
    """As a migration of a newer version may: it adds."""
    with database.transaction() as session:
        for table in Base.metadata.sorted_tables:
            session.execute(text(f"ALTER TABLE {table.name} ADD COLUMN of_tomorrow TEXT"))
        session.execute(text("CREATE TABLE of_tomorrow (name TEXT)"))
        session.execute(text("UPDATE alembic_version SET version_num = :newer"), {"newer": NEWER})


def test_a_server_goes_on_over_tables_that_a_newer_one_has_migrated(database: Database, cipher: Cipher) -> None:
    def put(name: str) -> None:
        with database.transaction() as session:
            put_endpoint(session, cipher, EndpointSpec(name=name))
            session.add(RegisteredModel(name=name, version="1", path="/models/mine"))

    put("before")
    for _ in range(10):  # PostgreSQL's driver prepares what it is asked again
        read_state(database, "before")
    migrate_further(database)
    put("after")

    assert read_state(database, "before") == read_state(database, "after") == "Creating"


def test_a_word_that_only_a_newer_version_knows_is_shown_as_it_is(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        put_endpoint(session, cipher, EndpointSpec(name="flux"))
        session.execute(text("UPDATE endpoints SET provisioning_state = 'Paused'"))

    with database.transaction() as session:
        state = get_endpoint(session, "flux").provisioning_state
    assert isinstance(state, NewerWord)
    assert state.value == "Paused"


def test_a_server_that_is_older_than_the_database_is_refused_and_changes_nothing(database: Database) -> None:
    migrate_further(database)

    with pytest.raises(ConfigurationError, match="by a newer Safelight than this one; install that one here too, or"):
        database.migrate()

    with database.transaction() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == NEWER


def test_gateways_that_start_at_once_migrate_once(postgresql_url: str) -> None:
    databases = [Database(emptied(postgresql_url), Disk()) for _ in range(4)]
    failures: list[BaseException] = []

    def migrate(database: Database) -> None:
        try:
            database.migrate()
        except BaseException as error:  # noqa: BLE001  a thread's
            failures.append(error)

    threads = [threading.Thread(target=migrate, args=[each]) for each in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert len({each.revision for each in databases}) == 1
    with databases[0].transaction() as session:
        assert session.scalars(text("SELECT version_num FROM alembic_version")).all() == [databases[0].revision]
    for each in databases:
        each.close()


def test_a_migration_waits_for_no_table_for_long_as_all_gateways_would_wait_behind_it(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup, for one, reads all tables until it has ended."""
    monkeypatch.setattr(database_module, "_HURRY", text("SET LOCAL lock_timeout = '100ms'"))
    older, newer = (Database(emptied(postgresql_url), Disk()) for _ in range(2))
    with older._engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0002")

    with older._engine.connect() as backup:
        backup.execute(text("LOCK TABLE deployments, jobs IN ACCESS SHARE MODE"))
        with pytest.raises(ConfigurationError, match="for longer than a migration waits, such as a backup; start when"):
            newer.migrate()
        assert backup.scalar(text("SELECT version_num FROM alembic_version")) == "0002"
        assert backup.scalar(text("SELECT to_regclass('shared_secrets')")) is None

    newer.migrate()
    for each in (older, newer):
        each.close()


def test_the_lead_goes_to_a_gateway_of_the_version_that_has_migrated_the_database(
    postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(emptied(postgresql_url), Disk())
    database.migrate()

    async def update_one_after_the_other() -> None:
        older, newer, another = Gateways(database), Gateways(database_of(NEWER)), Gateways(database)
        await older.start()
        await until(lambda: older.standing.role is Role.LEADER)
        await asyncio.to_thread(tell_otherwise, database)
        await asyncio.to_thread(migrate_further, database)
        await newer.start()
        await another.start()
        try:
            await until(lambda: newer.standing.role is Role.LEADER)
            assert [each.standing.is_outdated for each in (older, newer, another)] == [True, False, True]
            assert {each.standing.role for each in (older, another)} == {Role.FOLLOWER}
        finally:
            for each in (older, newer, another):
                await each.stop()

    def database_of(revision: str) -> Database:
        other = Database(postgresql_url, Disk())
        other.revision = revision
        return other

    asyncio.run(update_one_after_the_other())

    warned = [each.message for each in caplog.records if "a newer Safelight has migrated the database" in each.message]
    assert len(warned) == 2
    database.close()


def tell_otherwise(database: Database) -> None:
    """News that a newer version may have."""
    with database.transaction() as session:
        for news in ("jobs", "", '{"version": 2}', "jobs  ", "of_tomorrow 1 2 3"):
            session.execute(text("SELECT pg_notify('safelight', :news)"), {"news": news})


def test_migrations_only_add_so_that_older_gateways_go_on_over_them() -> None:
    """What is taken away, renamed or made stricter would fail in those that still run."""
    stricter = re.compile(r"op\.(drop|alter|rename|create_(unique|check|foreign))\w*|DROP |RENAME |ALTER ")
    folder = Path(str(migrations.__file__)).parent / "versions"
    for file in sorted(folder.glob("v*.py")):
        assert not stricter.search(file.read_text()), file
        for column in re.findall(r"op\.add_column\(.*?\)\)", file.read_text(), re.DOTALL):
            assert "nullable=True" in column or "server_default=" in column, column


def test_whoever_changes_what_a_row_holds_adds_a_migration(database: Database) -> None:
    """By its number alone an older gateway knows that it may not understand rows; it may change nothing at all."""
    words = {each.__name__: [*each] for each in (JobState, OperationKind, OperationStatus, ProvisioningState)}

    assert (database.revision, shape_of([DeploymentSpec, StoredRequest], words)) == ("0003", "81cc97e9b884")


def read_state(database: Database, name: str) -> str:
    with database.transaction() as session:
        return get_endpoint(session, name).provisioning_state.value
