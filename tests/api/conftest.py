from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    return FakeDispatcher()


@pytest.fixture
def connect(dispatcher: FakeDispatcher) -> Iterator[Callable[..., TestClient]]:
    """`connect(api_key="k")`: a client of the real app with these settings."""
    with ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            app = create_app(Settings(**settings), dispatcher)  # type: ignore[arg-type]
            return stack.enter_context(TestClient(app))

        yield start


@pytest.fixture
def client(connect: Callable[..., TestClient]) -> TestClient:
    return connect()
