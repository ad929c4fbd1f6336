from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[TestClient, FakeDispatcher]]:
    """An app that keeps nothing between two requests but its metrics."""
    dispatcher = FakeDispatcher()
    with TestClient(create_app(Settings(), dispatcher)) as client:  # type: ignore[arg-type]
        yield client, dispatcher


@pytest.fixture
def dispatcher(shared: tuple[TestClient, FakeDispatcher]) -> FakeDispatcher:
    """The dispatcher of `client` and of all that `connect` gives, as good as new."""
    dispatcher = shared[1]
    dispatcher.__init__()  # type: ignore[misc]
    return dispatcher


@pytest.fixture
def client(shared: tuple[TestClient, FakeDispatcher], dispatcher: FakeDispatcher) -> TestClient:
    """A client of the real app with default settings."""
    return shared[0]


@pytest.fixture
def connect(dispatcher: FakeDispatcher) -> Iterator[Callable[..., TestClient]]:
    """`connect(api_key="k")`: a client of a new app with these settings."""
    with ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            app = create_app(Settings(**settings), dispatcher)  # type: ignore[arg-type]
            return stack.enter_context(TestClient(app))

        yield start
