"""A server with jobs, and a client that waits for them to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from safelight.server.app import create_app
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.settings import Settings
from tests.api.fake_dispatcher import FakeDispatcher
from tests.fakes import fake_replicas
from tests.waiting import eventually

Connect = Callable[..., TestClient]
ASYNC = {"Prefer": "respond-async"}
OPENAI, SCORE = "/v1/images/generations", "/score"
PROMPT = {"inputs": "a fox", "parameters": {"seed": 7}}


@contextmanager
def serving_jobs(dispatcher: FakeDispatcher, data_dir: Path) -> Iterator[Connect]:
    """`connect(api_key="k")`: a client of a server with jobs, in one data directory."""
    with ExitStack() as stack:

        def start(dispatcher: FakeDispatcher = dispatcher, **settings: Any) -> TestClient:
            values = Settings(data_dir=data_dir, **settings)
            app = create_app(values, dispatcher, OnlineEndpoints(values, fake_replicas()))  # type: ignore[arg-type]
            return stack.enter_context(TestClient(app, headers=bearer("k") if "api_key" in settings else None))

        yield start


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ended(client: TestClient, response: httpx.Response) -> dict[str, Any]:
    """The job that a response told of, when it has ended."""
    assert response.status_code == 202, response.text
    job: dict[str, Any] = {}

    def has_ended() -> bool:
        job.update(client.get(response.headers["location"]).json())
        return job["state"] not in ("queued", "running")

    eventually(has_ended)
    return job
