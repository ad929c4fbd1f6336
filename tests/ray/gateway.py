"""A gateway before replicas on Ray that draw with FakeEngine, in a process of its own.

Run as a module it is that process: settings come from SAFELIGHT_* variables, the engine from FAKE_ENGINE. What it gives
up it tries again a second later.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from safelight.server.app import create_app
from safelight.server.http.listener import Server
from safelight.serving.backends.ray import replica
from safelight.serving.start import create_dispatcher
from safelight.settings import load_settings
from tests.fakes import DEADLINE_S, FAKE_SPEC, FakeEngineOptions
from tests.ray.fake_backend import fake_ray_replicas
from tests.waiting import eventually


@dataclass(frozen=True)
class Gateway:
    """Where it is, and its process."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    def ask(self, prompt: str = "a lamp", *, timeout_s: float = DEADLINE_S, **parameters: Any) -> httpx.Response:
        body = {"inputs": prompt, "parameters": {"seed": 7} | parameters}
        return self.client.post("/", json=body, timeout=timeout_s)

    def replicas(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.client.get("/health/ready").json()["replicas"]
        return told

    def wait_until_ready(self, num_replicas: int = 1) -> None:
        eventually(lambda: self._num_ready() == num_replicas, timeout_s=4 * DEADLINE_S)

    def _num_ready(self) -> int:
        try:
            return sum(each["state"] == "ready" for each in self.replicas())
        except (httpx.HTTPError, KeyError):
            return -1


@contextmanager
def running_gateway(
    address: str, folder: Path, options: FakeEngineOptions | None = None, **settings: object
) -> Iterator[Gateway]:
    """A driver of the cluster at `address`; it is told to stop at the end, if it has not ended until then."""
    given = {
        "runtime": "ray",
        "ray_address": address,
        "online_endpoints": "false",
        "data_dir": folder,
        "hold_while_loading_s": 0,
        "drain_timeout_s": 5,
    } | settings
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray.gateway", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env=os.environ
            | {f"SAFELIGHT_{name.upper()}": str(value) for name, value in given.items()}
            | {"FAKE_ENGINE": msgspec.json.encode(options or FakeEngineOptions()).decode()},
            stderr=stderr,
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False, verify=False)
    try:
        with client:
            yield Gateway(process, client, log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=30)
            raise


def main() -> None:
    settings = load_settings()
    options = msgspec.json.decode(os.environ["FAKE_ENGINE"], type=FakeEngineOptions)
    replica.FIRST_RETRY_S = 1.0
    dispatcher = create_dispatcher(fake_ray_replicas(settings, options), settings, Path("/nowhere"), FAKE_SPEC)

    async def serve() -> None:
        server = Server(create_app(settings, dispatcher), settings)
        await server.serve(sockets=[socket.socket(fileno=int(sys.argv[1]))])

    asyncio.run(serve())


if __name__ == "__main__":
    main()
