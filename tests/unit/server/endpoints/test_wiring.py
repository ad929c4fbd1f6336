from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from safelight.control.secrets.connections import ConnectionSpec, put_connection
from safelight.control.secrets.encryption import KEY_FILE, generate_key
from safelight.errors import ConfigurationError
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.fakes import fake_replicas
from tests.unit.conftest import emptied

KEY = generate_key()


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


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("REVOKE ALL ON alembic_version FROM weak", "permission denied for table alembic_version"),
        ("REVOKE ALL ON connections FROM weak", "permission denied for table connections"),
        ("REVOKE ALL ON shared_secrets FROM weak", "permission denied for table shared_secrets"),
        ("ALTER TABLE endpoints RENAME TO gone", 'relation "endpoints" does not exist'),
        ("DELETE FROM shared_secrets; ALTER ROLE weak SET default_transaction_read_only = on", "read-only"),
    ],
)
def test_a_database_that_a_server_may_not_use_is_a_line_before_it_starts(
    statement: str, problem: str, postgresql_url: str, tmp_path: Path
) -> None:
    def start(url: str) -> OnlineEndpoints:
        settings = Settings(data_dir=tmp_path, database_url=SecretStr(url), encryption_keys=SecretStr(KEY))
        return OnlineEndpoints(settings, fake_replicas())

    url = emptied(postgresql_url)
    asyncio.run(start(url).stop())
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1))
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN"))
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO weak; GRANT ALL ON SCHEMA public TO weak"))
        connection.execute(text(statement))
    try:
        with pytest.raises(ConfigurationError, match=f"^the database at .* cannot be used: .*{problem}"):
            start(f"{url}&user=weak")
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP OWNED BY weak; DROP ROLE weak"))
        engine.dispose()
