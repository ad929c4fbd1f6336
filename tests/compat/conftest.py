from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live_server import LiveServer, live_server

KEY = "s3cret"


@pytest.fixture(scope="session")
def server() -> Iterator[LiveServer]:
    """One server with a key for all the official clients."""
    with live_server(api_key=KEY, model="black-forest-labs/FLUX.1-schnell") as server:
        yield server
