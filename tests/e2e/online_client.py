"""A small client of both surfaces of an online server, for tests: ARM by `arm`, pictures by `draw`."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.checkpoint_files import write_checkpoint
from tests.online_server import OnlineServer
from tests.waiting import pauses

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
PROMPT = {"inputs": "Astronaut", "parameters": {"width": 64, "height": 64, "seed": 7}}


class OnlineClient(httpx.Client):
    """Trusts the server's own certificate."""

    def __init__(self, server: OnlineServer) -> None:
        super().__init__(
            base_url=server.url,
            verify=ssl.create_default_context(cafile=str(server.certificate)),
            timeout=60,
            trust_env=False,
        )
        self.admin = {"Authorization": f"Bearer {server.admin_token}"}

    def arm(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return self.request(method, f"{WORKSPACE}{path}?api-version=2024-10-01", json=body, headers=self.admin)

    def finish(self, response: httpx.Response) -> dict[str, Any]:
        """How the operation that a response began has ended."""
        assert response.is_success, response.text
        for pause_s in pauses():
            status = self.get(response.headers["azure-asyncoperation"], headers=self.admin).json()
            if status["status"] != "InProgress":
                return dict(status)
            time.sleep(pause_s)
        raise AssertionError

    def create_endpoint(self, name: str = "flux", **properties: Any) -> None:
        body = {"location": "local", "properties": {"authMode": "Key"} | properties}
        assert self.finish(self.arm("PUT", f"/onlineEndpoints/{name}", body))["status"] == "Succeeded"

    def deploy(
        self, name: str = "blue", *, endpoint: str = "flux", instances: int = 1, **properties: Any
    ) -> dict[str, Any]:
        return self.finish(self.begin_deploy(name, endpoint=endpoint, instances=instances, **properties))

    def begin_deploy(
        self, name: str = "blue", *, endpoint: str = "flux", instances: int = 1, **properties: Any
    ) -> httpx.Response:
        body = {
            "sku": {"name": "Default", "capacity": instances},
            "properties": {"model": "azureml:tiny:1"} | properties,
        }
        return self.arm("PUT", f"/onlineEndpoints/{endpoint}/deployments/{name}", body)

    def key(self, endpoint: str = "flux") -> str:
        return str(self.arm("POST", f"/onlineEndpoints/{endpoint}/listKeys", {}).json()["primaryKey"])

    def draw(
        self, key: str | None, path: str = "/endpoints/flux/score", body: dict[str, Any] | None = None, **headers: str
    ) -> httpx.Response:
        credentials = {} if key is None else {"Authorization": f"Bearer {key}"}
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post(path, json=body or PROMPT, headers=credentials | fields)

    def wait_until_it_draws(self, key: str) -> httpx.Response:
        """After a restart, or at another gateway: until the deployment is ready, and its traffic is known there."""
        for pause_s in pauses():
            with suppress(httpx.TransportError):
                response = self.draw(key)
                if response.status_code not in (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.NOT_FOUND):
                    return response
            time.sleep(pause_s)
        raise AssertionError


def register_tiny_model(client: OnlineClient, folder: Path) -> None:
    """A folder that holds only what tells it is a FLUX.1 checkpoint; FakeEngine draws."""
    write_checkpoint(folder)
    response = client.arm("PUT", "/models/tiny/versions/1", {"properties": {"modelUri": str(folder)}})
    assert response.is_success, response.text


@contextmanager
def drawing(client: OnlineClient, key: str) -> Iterator[list[int]]:
    """Requests one after another on two threads until the block ends: their statuses."""
    statuses: list[int] = []
    is_over = threading.Event()

    def draw() -> None:
        while not is_over.wait(0.01):  # what is being done meanwhile needs time, too
            statuses.append(client.draw(key).status_code)

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
