"""Several gateways over one PostgreSQL, each a server of its own with a data directory of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from safelight.control.secrets.encryption import generate_key
from tests.e2e.online_client import OnlineClient, register_tiny_model
from tests.online_server import OnlineServer, online_server
from tests.waiting import eventually

ENCRYPTION_KEY = generate_key()
_LEADER = (
    "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) "
    "WHERE locktype = 'advisory' AND classid = 372706 AND granted"
)


@dataclass
class Gateway:
    """A server, and a client of it alone."""

    server: OnlineServer
    client: OnlineClient


@contextmanager
def gateway(folder: Path, database_url: str, **env: str) -> Iterator[Gateway]:
    """Running when the block begins, gone when it ends."""
    settings = {
        "SAFELIGHT_DATABASE_URL": database_url,
        "SAFELIGHT_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "SAFELIGHT_IMAGE_STORE_URL": str(folder.parent / "images"),
    }
    with online_server(folder, settings | env) as server, OnlineClient(server) as client:
        yield Gateway(server, client)


@contextmanager
def gateways(folder: Path, database_url: str, names: str = "ab", **env: str) -> Iterator[Sequence[Gateway]]:
    """The first of them leads when the block begins."""
    with ExitStack() as stack:
        started = []
        for name in names:
            started.append(stack.enter_context(gateway(folder / name, database_url, **env)))
            eventually(lambda: leader_pid(database_url) == started[0].server.pid)
        yield started


def leader_pid(database_url: str) -> int | None:
    """The process of the gateway that leads."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(_LEADER).fetchone()
    return None if row is None else int(row[0].split()[-1])


def serve_flux(client: OnlineClient, folder: Path, **properties: Any) -> str:
    """An endpoint `flux` whose deployment `blue` takes all traffic; its key."""
    register_tiny_model(client, folder)
    client.create_endpoint()
    assert client.deploy(**properties)["status"] == "Succeeded"
    client.create_endpoint(traffic={"blue": 100})
    return client.key()
