"""The one way to the database: SQLite in WAL mode by default, PostgreSQL by URL, migrated when it is opened.

Everything here blocks; a coroutine calls it through `Database.run`. A transaction is one operation: it commits at the
end of the `with` block or leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExecutionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from safelight.control.store.database_failures import cause_of
from safelight.disk import Disk
from safelight.errors import ConfigurationError, StorageUnavailable

BUSY_TIMEOUT_MS = 30_000
_PATIENCE = {
    "connect_timeout": "10",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
}
"""With PostgreSQL, unless the URL says other: a machine that is gone is noticed in seconds."""
ANSWER_TIMEOUT_S = 15.0
"""Of PostgreSQL, which may be there and not answer. SQLite has its own."""
MAX_THREADS = 5
"""As many connections as SQLAlchemy keeps."""
PLACE = "the database"
_NO_URL = (
    "database_url is no URL of a database, such as postgresql://USER:PASSWORD@HOST/NAME; signs such as / and @ in the "
    "password are written as %2F and %40"
)
_HAS_WRITTEN = "has_written"
_HURRY = text("SET LOCAL lock_timeout = '5s'")
"""Of a migration: whoever asks for a table that it waits for waits too, at all gateways."""
_LOCK_TIMEOUT = "55P03"
"""By SQLSTATE."""
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('safelight ' || :name, 0))")

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """An engine, its transactions, and threads of its own: one that is locked keeps nobody else waiting."""

    def __init__(self, url: str | URL, disk: Disk) -> None:
        """Raises ConfigurationError if the URL is none of a database that can be used."""
        self._engine = _engine_of(url)
        self._pool = self._engine.pool
        self._is_closed = False
        self._disk = disk
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="database")
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)
        self.revision: str | None = None
        """Of its tables, when it was opened: the newest that this version knows."""

    @property
    def is_shared(self) -> bool:
        """Whether other gateways may use it too."""
        return self._engine.dialect.name != "sqlite"

    @property
    def file(self) -> Path | None:
        """SQLite's."""
        name = self._engine.url.database
        return None if self.is_shared or name in (None, "", ":memory:") else Path(str(name))

    def connect_arguments(self) -> dict[str, Any]:
        """What libpq is told by the URL: for a connection that is not one of the pool's."""
        return dict(self._engine.dialect.create_connect_args(self._engine.url)[1])

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, which uses the database, in a thread.

        Raises StorageUnavailable too if it takes too long; it may still come to its end then.
        """
        in_context = partial(contextvars.copy_context().run, self._work, partial(work, *args, **kwargs))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S if self.is_shared else None) as timeout:
                return await asyncio.get_running_loop().run_in_executor(self._threads, in_context)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise self._disk.refused(PLACE, "it does not answer", detail=f"in {ANSWER_TIMEOUT_S:g} s") from error

    def _work(self, work: Callable[[], T]) -> T:
        """In a thread, which may outlive `close`: its connection is closed then too."""
        try:
            return work()
        finally:
            if self._is_closed:
                self._pool.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or rolls back if an error leaves it.

        Raises StorageUnavailable if the database takes nothing now.
        """
        try:
            with self._sessions.begin() as session:
                yield session
                session.flush()
                has_written = session.connection().info[_HAS_WRITTEN]
        except DBAPIError as error:
            cause = cause_of(error)
            if cause is None:
                raise
            raise self._disk.refused(PLACE, cause, detail=str(error.orig)) from error
        if has_written:
            self._disk.took(PLACE)

    def migrate(self) -> None:
        """Bring the tables to the newest revision: all of it, or nothing. Raises as `opening`."""
        with self.opening(), self._engine.begin() as connection:
            if self.is_shared:
                connection.execute(_LOCK, {"name": "migrations"})
                connection.execute(_HURRY)
            command.upgrade(alembic_config(connection), "head")
            self.revision = MigrationContext.configure(connection).get_current_revision()

    @contextmanager
    def opening(self) -> Iterator[None]:
        """What a server does first: whatever the database refuses there is a ConfigurationError."""
        try:
            yield
        except CommandError:
            raise ConfigurationError(
                "the database was migrated by a newer Safelight than this one; install that one here too, or go back "
                "to a copy of the database from before that"
            ) from None
        except (SQLAlchemyError, StorageUnavailable, UnicodeError) as error:  # the last one for what is no host
            url = self._engine.url.set(query={})  # where a password can be too
            raise ConfigurationError(f"the database at {url!r} cannot be used: {_words_of(error)}") from error

    def close(self) -> None:
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.dispose()


def open_database(url: str | None, data_dir: Path, disk: Disk | None = None) -> Database:
    """The database at `url`, or `safelight.db` in the data directory; its tables are up to date."""
    path = data_dir / "safelight.db"
    if url is None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(OSError):  # opening it then says what is wrong
            path.touch(mode=0o600)  # jobs hold prompts and pictures; SQLite gives its other files the same mode
    database = Database(URL.create("sqlite", database=str(path)) if url is None else url, disk or Disk())
    try:
        database.migrate()
    except ConfigurationError:
        database.close()
        raise
    return database


def lock(session: Session, name: str) -> None:
    """Until this transaction ends no other one that locks the same name goes on, at whatever gateway."""
    if session.connection().dialect.name != "sqlite":  # there a transaction has the whole file to itself
        session.execute(_LOCK, {"name": name})


def lock_tables(session: Session, tables: Sequence[type[DeclarativeBase]]) -> None:
    """Until this transaction ends no other one reads or writes them; those that have begun to are waited for."""
    if session.connection().dialect.name != "sqlite":  # there a transaction has the whole file to itself
        names = ", ".join(table.__tablename__ for table in tables)
        session.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))


def alembic_config(connection: Connection) -> Config:
    """What Alembic needs to run this package's migrations on `connection`."""
    config = Config()
    config.set_main_option("script_location", "safelight.control:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _engine_of(given: str | URL) -> Engine:
    try:
        url = make_url(given)
    except (SQLAlchemyError, ValueError):  # neither's words are repeated: they may be a part of the password
        raise ConfigurationError(_NO_URL) from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigurationError(f"database_url begins with {url.drivername}; use postgresql or sqlite")
    try:
        if url.get_backend_name() == "postgresql" and "@" in f"{url.host}{url.database}":
            raise ConfigurationError(_NO_URL)  # it is the rest of the password, and would be in every error
        engine = _create_engine(url)
    except ValueError:
        raise ConfigurationError("database_url has an option behind its ? that cannot be read") from None
    except (ImportError, SQLAlchemyError):
        raise ConfigurationError(
            f"there is no driver for {url.drivername} here; write postgresql://, and run: pip install "
            "'safelight[postgres]'"
        ) from None
    event.listen(engine, "begin", _forget_writes)
    event.listen(engine, "after_cursor_execute", _note_writes)
    return engine


def _words_of(error: Exception) -> str:
    """The database's own, in one line, without SQLAlchemy's around them."""
    cause = error.__cause__ if isinstance(error, StorageUnavailable) else error
    if getattr(getattr(cause, "orig", None), "sqlstate", None) == _LOCK_TIMEOUT:
        return "something has its tables for longer than a migration waits, such as a backup; start when that has ended"
    return " ".join(str(cause.orig if isinstance(cause, DBAPIError) else cause).split())


def _create_engine(url: URL) -> Engine:
    """Its errors name no parameters: these are prompts, keys and addresses, and errors are logged."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    url = url.set(query={**_PATIENCE, **url.query})
    return create_engine(url, hide_parameters=True, pool_pre_ping=True)


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 then leaves BEGIN to us
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _forget_writes(connection: Connection) -> None:
    connection.info[_HAS_WRITTEN] = False


def _note_writes(
    connection: Connection,
    cursor: DBAPICursor,
    _statement: str,
    _parameters: object,
    context: ExecutionContext,
    _executemany: bool,
) -> None:
    """That a statement changed a row: a disk that lets itself be read may be full all the same."""
    returns_nothing = cursor.description is None  # a deletion is told by that alone
    if context.isinsert or (cursor.rowcount > 0 and (context.isupdate or returns_nothing)):
        connection.info[_HAS_WRITTEN] = True


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: two transactions that both read and then write would otherwise fail, not wait."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
