from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from safelight.control.secrets.connections import ConnectionSpec, put_connection
from safelight.control.secrets.encryption import KEY_FILE
from safelight.errors import ConfigurationError
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.fakes import fake_replicas


def test_a_server_whose_encryption_key_is_lost_says_so_before_it_starts(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    before = OnlineEndpoints(settings, fake_replicas())
    with before.plane.database.transaction() as session:
        put_connection(session, before.plane.cipher, ConnectionSpec(name="hub", credentials={"HF_TOKEN": "hf_secret"}))
    asyncio.run(before.stop())
    (tmp_path / KEY_FILE).unlink()

    with pytest.raises(ConfigurationError, match="put back the file encryption-keys"):
        OnlineEndpoints(settings, fake_replicas())


def test_a_second_server_on_one_sqlite_file_is_refused_until_the_first_one_ends(tmp_path: Path) -> None:
    def start(name: str) -> OnlineEndpoints:
        url = SecretStr(f"sqlite:///{tmp_path / 'shared.db'}")
        return OnlineEndpoints(Settings(data_dir=tmp_path / name, database_url=url), fake_replicas())

    first = start("a")

    with pytest.raises(ConfigurationError, match=r"shared\.db.*PostgreSQL"):
        start("b")

    asyncio.run(first.stop())
    asyncio.run(start("b").stop())
