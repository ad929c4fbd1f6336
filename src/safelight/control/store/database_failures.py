"""Why a database takes nothing, if it is not for a bug of ours: in words that tell a client nothing of the inside."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError

from safelight.disk import FULL, READ_ONLY

_AWAY = "it cannot be reached"
_SQLITE = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_IOERR: "its disk fails, or a limit on files or their size is reached",
    sqlite3.SQLITE_CANTOPEN: "one of its files cannot be opened",
    sqlite3.SQLITE_BUSY: "something else keeps it locked",
}
"""By primary result code: https://www.sqlite.org/rescode.html."""
_POSTGRESQL = {
    "53100": FULL,
    "25006": READ_ONLY,
    "42501": "the user of its URL may not use it so",
    "40": "two changes waited for each other",
    "08": _AWAY,
    "53": "it has run out of resources",
    "57P": "it is being stopped or started",
    "58": "its disk fails",
}
"""By SQLSTATE or the class of it: https://www.postgresql.org/docs/current/errcodes-appendix.html."""


def cause_of(error: DBAPIError) -> str | None:
    """None: the database did what it was asked to, and what it was asked was wrong."""
    if isinstance(error.orig, sqlite3.Error):
        return _SQLITE.get(getattr(error.orig, "sqlite_errorcode", 0) & 0xFF)
    state = getattr(error.orig, "sqlstate", "")
    if state is None:  # the connection failed, and so nobody gave a code
        return _AWAY if isinstance(error, OperationalError) else None
    return next((_POSTGRESQL[each] for each in (state, state[:3], state[:2]) if each in _POSTGRESQL), None)
