from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints, create_arm_app
from safelight.settings import Settings
from tests.api.control_plane import WORKSPACE
from tests.api.fake_dispatcher import FakeDispatcher
from tests.fakes import fake_replicas


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


@pytest.fixture
def online(tmp_path: Path) -> OnlineEndpoints:
    return OnlineEndpoints(Settings(data_dir=tmp_path), fake_replicas())


@pytest.fixture
def stranger(tmp_path: Path, online: OnlineEndpoints) -> Iterator[TestClient]:
    """Whoever has no key."""
    with TestClient(create_app(Settings(data_dir=tmp_path), FakeDispatcher(), online)) as client:  # type: ignore[arg-type]
        yield client


@pytest.fixture
def arm(tmp_path: Path, online: OnlineEndpoints, stranger: TestClient) -> Callable[..., Response]:
    """`arm("PUT", "/connections/hub", {...})`: the control plane's answer, which must be one that is documented."""
    paths = create_arm_app(online.plane, Settings(data_dir=tmp_path)).openapi()["paths"]
    administrator = {"Authorization": f"Bearer {online.plane.admin_token}"}

    def arm(method: str, path: str, body: object = None) -> Response:
        response = stranger.request(method, f"{WORKSPACE}{path}", json=body, headers=administrator)
        url = f"{WORKSPACE}{path}".partition("?")[0]
        route = next(each for each in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), url))
        assert str(response.status_code) in paths[route][method.lower()]["responses"]
        return response

    return arm
