"""A control plane over a database, with a reconciler whose deployments are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from safelight.control.secrets.encryption import Cipher, generate_key
from safelight.control.store.database import Database
from tests.unit.control.fake_serving import FakeStarter
from tests.unit.control.world import Run, World, running


@pytest.fixture
def cipher() -> Cipher:
    return Cipher([generate_key()])


@pytest.fixture
def run(database: Database, cipher: Cipher, tmp_path: Path) -> Run:
    """Runs a scenario with a fresh reconciler; call it again for a restart."""

    def run(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with running(database, cipher, tmp_path, FakeStarter()) as world:
                await scenario(world)

        asyncio.run(main())

    return run
