from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from httpx import Response
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.api.control_plane import WORKSPACE, Standing, standing_server
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


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A server for all tests of a module: to make one takes a third of a second. Each finds it empty."""
    with standing_server(tmp_path_factory.mktemp("data")) as standing:
        yield standing


@pytest.fixture
def online(standing: Standing) -> Iterator[OnlineEndpoints]:
    yield standing.online
    standing.empty()


@pytest.fixture
def stranger(standing: Standing, online: OnlineEndpoints) -> TestClient:
    """Whoever has no key."""
    return standing.stranger


@pytest.fixture
def arm(standing: Standing, online: OnlineEndpoints) -> Callable[..., Response]:
    """`arm("PUT", "/connections/hub", {...})`: the control plane's answer, which must be one that is documented."""

    def arm(method: str, path: str, body: object = None) -> Response:
        response = standing.request(method, path, body)
        url = f"{WORKSPACE}{path}".partition("?")[0]
        route = next(each for each in standing.paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), url))
        assert str(response.status_code) in standing.paths[route][method.lower()]["responses"]
        return response

    return arm
