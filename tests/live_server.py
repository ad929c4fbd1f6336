"""The app behind the real server on loopback, with replicas in child processes that run FakeEngine."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from safelight.server.app import create_app
from safelight.server.certificates import certificate_files
from safelight.server.http.listener import Server
from safelight.settings import Settings
from tests.fakes import DEADLINE_S, FakeDeployment, fake_dispatcher
from tests.waiting import eventually


@dataclass(frozen=True)
class LiveServer:
    """Where it listens, and what it has counted."""

    port: int
    api_key: str | None = None
    tls: ssl.SSLContext | None = None
    """What trusts its certificate, if it serves HTTPS."""

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return httpx.get(self.url + path, headers=headers, timeout=DEADLINE_S, verify=self.tls or False)

    def count(self, name: str, **labels: str) -> float:
        """A metric's value; 0 if it is not there yet."""
        text = self.get("/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@contextmanager
def live_server(
    deployment: FakeDeployment | None = None, *, is_awaited: bool = True, **settings: object
) -> Iterator[LiveServer]:
    """Ready (or only alive, if not `is_awaited`) when the block begins, gone when it ends."""
    given = Settings(**settings)  # type: ignore[arg-type]
    app = create_app(given, fake_dispatcher(deployment))
    server = Server(app, given)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        tls = ssl.create_default_context(cafile=certificate_files(given)[0]) if given.tls else None
        live = LiveServer(listener.getsockname()[1], given.read_api_key(), tls)
        try:
            eventually(lambda: _is_ok(live, "/health/ready" if is_awaited else "/health/live"))
            yield live
        finally:
            server.should_exit = True
            thread.join(DEADLINE_S)
    assert not thread.is_alive()


def _is_ok(live: LiveServer, path: str) -> bool:
    try:
        return live.get(path).status_code == 200
    except httpx.TransportError:
        return False
