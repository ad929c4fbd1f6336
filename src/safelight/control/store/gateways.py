"""A gateway among those that share a PostgreSQL: that it lives, whether it leads, and news of what others wrote.

One session of PostgreSQL's is all of it. While it lasts the gateway holds an advisory lock of its own number, by which
others see it alive, and one of them the lock of the leader; PostgreSQL frees both when the session ends. NOTIFY brings
news; a look each half second finds what a notification that was lost would have told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from socket import gethostname
from typing import TYPE_CHECKING

from safelight.control.store.database import Database
from safelight.errors import ConfigurationError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

logger = logging.getLogger(__name__)

CHANNEL = "safelight"
POLL_S = 0.5
RETRY_S = 0.5
ANSWER_TIMEOUT_S = 5.0
"""A database that does not answer for so long is away."""
SILENCE_S = 15
"""PostgreSQL ends the session of a gateway that has asked for nothing in so long: its machine is gone, or hangs."""
GRACE_S = 5.0
"""A gateway that has not been seen for so long is dead. After a restart of PostgreSQL all of them have to come back."""
_LIVING, _LEADING = 0x5AFE1, 0x5AFE2
"""Classes of advisory locks."""
_SEEN = (
    "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Role(StrEnum):
    LEADER = "leader"
    """Carries out operations, and sends webhooks."""
    FOLLOWER = "follower"
    UNKNOWN = "unknown"
    """The database is away: who leads is seen when it is back."""


@dataclass(frozen=True, slots=True)
class News:
    """What may have changed."""

    jobs: Mapping[str, str] = field(default_factory=dict)
    """States by id, of those that were told."""


@dataclass(slots=True, eq=False)
class Standing:
    """What this gateway is among all. Without a number it is the only one."""

    id: int | None = None
    role: Role = Role.LEADER
    alive: frozenset[int] | None = frozenset()
    """The numbers of the gateways that are not dead; None: that is not known yet."""
    is_outdated: bool = False
    """A newer version has migrated the database: this one goes on with what it has, and begins nothing for others."""

    @property
    def has_others(self) -> bool:
        """Or may have."""
        return self.alive is None or bool(self.alive - {self.id})


Listener = Callable[[News], None]


class Gateways:
    """Owns the session, and keeps `standing` true."""

    def __init__(self, database: Database) -> None:
        """Raises ConfigurationError if there is no driver."""
        self._database = database
        self.standing = Standing()
        if database.is_shared:
            _check_driver()
            self.standing = Standing(secrets.randbelow(2**31 - 1) + 1, Role.UNKNOWN, None)
        self._listeners: list[Listener] = []
        self._seen: dict[int, float] = {}
        """When each gateway was seen last, in this session."""
        self._began_at: float | None = None
        self._may_lead = True
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    def tell(self, listener: Listener) -> None:
        """From now on `listener` is called with all news, and at least every `POLL_S` while the database is there."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Returns when this gateway knows its role, or that the database is away."""
        if self.standing.id is not None:
            self._task = asyncio.create_task(self._stay(self.standing.id), name="session among gateways")
            await self._tried.wait()

    def resign(self) -> None:
        """Leave the lead to another one, within a second; what was begun here may be finished here."""
        self._may_lead = False

    async def stop(self) -> None:
        """The lead, and what this gateway had not finished, are free for others at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def _leads(self) -> bool:
        return self.standing.role is Role.LEADER

    async def _stay(self, id: int) -> None:
        from psycopg import Error  # noqa: PLC0415  an extra

        while True:
            try:
                async with await self._join(id) as connection:
                    await self._take_part(connection)
            except (Error, OSError, TimeoutError) as error:
                if self.standing.role is not Role.UNKNOWN or not self._tried.is_set():
                    logger.warning("the database is away (%s); what is served goes on", type(error).__name__)
            self.standing.role, self.standing.alive = Role.UNKNOWN, None
            self._seen, self._began_at = {}, None
            self._tried.set()
            await asyncio.sleep(RETRY_S)

    async def _join(self, id: int) -> AsyncConnection:
        from psycopg import AsyncConnection  # noqa: PLC0415  an extra

        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            connection = await AsyncConnection.connect(
                **self._database.connect_arguments() | {"application_name": f"safelight {gethostname()} {os.getpid()}"},
                autocommit=True,
            )
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await connection.execute(f"SET idle_session_timeout = '{SILENCE_S}s'".encode())
                await connection.execute("SELECT pg_advisory_lock(%s, %s)", (_LIVING, id))
                await connection.execute(f"LISTEN {CHANNEL}".encode())
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _take_part(self, connection: AsyncConnection) -> None:
        news = News()
        while True:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._look(connection)
            self._tried.set()
            for listener in self._listeners:
                listener(news)
            jobs: dict[str, str] = {}
            async for each in connection.notifies(timeout=POLL_S, stop_after=1):
                table, _, rest = each.payload.partition(" ")
                if table == "jobs":
                    job_id, _, state = rest.partition(" ")
                    jobs[job_id] = state
            news = News(jobs)

    async def _look(self, connection: AsyncConnection) -> None:
        """Take the lead if nobody has it, and see who is there."""
        cursor = await connection.execute("SELECT version_num FROM alembic_version")
        self._compare(await cursor.fetchall())
        if not self._may_lead or self.standing.is_outdated:
            await connection.execute("SELECT pg_advisory_unlock(%s, 0) WHERE %s", (_LEADING, self._leads))
            self.standing.role = Role.FOLLOWER
        elif not self._leads:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, 0)", (_LEADING,))
            row = await cursor.fetchone()
            self.standing.role = Role.LEADER if row is not None and row[0] else Role.FOLLOWER
            if self._leads:
                logger.info("gateway %s leads: it carries out operations from now on", self.standing.id)
        now = asyncio.get_running_loop().time()
        cursor = await connection.execute(_SEEN, (_LIVING,))
        self._seen |= {each: now for (each,) in await cursor.fetchall()}
        self._seen = {each: at for each, at in self._seen.items() if now - at < GRACE_S}
        self._began_at = now if self._began_at is None else self._began_at
        self.standing.alive = frozenset(self._seen) if now - self._began_at >= GRACE_S else None

    def _compare(self, revisions: Sequence[tuple[str, ...]]) -> None:
        if not self.standing.is_outdated and revisions != [(self._database.revision,)]:
            self.standing.is_outdated = True
            logger.warning(
                "a newer Safelight has migrated the database: this gateway goes on with what it serves, and leaves "
                "operations, webhooks and the jobs of dead gateways to newer ones; update it too"
            )


def _check_driver() -> None:
    """Whatever driver the URL names, this module has one."""
    try:
        import psycopg  # noqa: F401, PLC0415  an extra
    except ImportError:
        raise ConfigurationError("PostgreSQL needs psycopg: pip install 'safelight[postgres]'") from None
