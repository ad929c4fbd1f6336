"""What tests of the control plane's routes share; the fixture `arm` is in `conftest.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx import Response
from starlette.testclient import TestClient

from safelight.control.store.tables import Base
from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints, create_arm_app
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher
from tests.fakes import fake_replicas
from tests.waiting import eventually

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


@dataclass(frozen=True)
class Standing:
    """A server with online endpoints, a client of it that has no key, and what its document says of each path."""

    online: OnlineEndpoints
    stranger: TestClient
    paths: dict[str, Any]

    def request(self, method: str, path: str, body: object = None) -> Response:
        """By the administrator; the path is one of the workspace's."""
        administrator = {"Authorization": f"Bearer {self.online.plane.admin_token}"}
        return self.stranger.request(method, f"{WORKSPACE}{path}", json=body, headers=administrator)

    def empty(self) -> None:
        """Make it one that has just started, but for what it has counted."""
        eventually(self._has_no_endpoint)
        with self.online.plane.database.transaction() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())

    def _has_no_endpoint(self) -> bool:
        """An endpoint whose operation is in progress is refused to be deleted until it has ended."""
        names = [each["name"] for each in self.request("GET", "/onlineEndpoints").json()["value"]]
        for name in names:
            self.request("DELETE", f"/onlineEndpoints/{name}")
        return not names


@contextmanager
def standing_server(data_dir: Path) -> Iterator[Standing]:
    settings = Settings(data_dir=data_dir)
    online = OnlineEndpoints(settings, fake_replicas())
    paths = create_arm_app(online.plane, settings).openapi()["paths"]
    with TestClient(create_app(settings, FakeDispatcher(), online)) as client:  # type: ignore[arg-type]
        yield Standing(online, client, paths)


def put_endpoint(arm: Callable[..., Response], body: object = None) -> None:
    """Until it is there: an operation on it would be refused while another is in progress."""
    arm("PUT", "/onlineEndpoints/flux", body or {"properties": {}})
    while arm("GET", "/onlineEndpoints/flux").json()["properties"]["provisioningState"] == "Creating":
        time.sleep(0.01)


def put_deployment(arm: Callable[..., Response], name: str = "blue") -> None:
    """The embedded model, until it is ready to take traffic."""
    path = f"/onlineEndpoints/flux/deployments/{name}"
    arm("PUT", path, {"properties": {"model": "sprite"}})
    while arm("GET", path).json()["properties"]["provisioningState"] != "Succeeded":
        time.sleep(0.01)
