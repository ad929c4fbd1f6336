"""Disks that take nothing, without root: SQLite itself refuses, or the kernel. Each block gets what mends it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Connection, Engine, event

Mend = Callable[[], None]
Trouble = Callable[[], AbstractContextManager[Mend]]


@contextmanager
def no_file_grows() -> Iterator[Mend]:
    """The kernel lets this process write not a byte more to any file, as over a disk quota that is used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def mend() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield mend
    finally:
        mend()


@contextmanager
def no_page_is_free() -> Iterator[Mend]:
    """SQLite's files do not grow: what does not fit in is refused with "database or disk is full"."""
    with _pragma("max_page_count=1", then="max_page_count=4294967294") as mend:
        yield mend


@contextmanager
def nothing_may_be_written() -> Iterator[Mend]:
    """SQLite refuses every change with "attempt to write a readonly database", as over a disk that is mounted so."""
    with _pragma("query_only=ON", then="query_only=OFF") as mend:
        yield mend


@contextmanager
def _pragma(at_first: str, *, then: str) -> Iterator[Mend]:
    """For all connections, those that a pool holds too."""
    now = [at_first]

    def apply(connection: Connection, *_: object) -> None:
        connection.exec_driver_sql(f"PRAGMA {now[0]}")

    def mend() -> None:
        now[0] = then

    event.listen(Engine, "begin", apply)
    try:
        yield mend
    finally:
        event.remove(Engine, "begin", apply)
