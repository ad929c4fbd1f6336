"""Every answer has a name that the log knows."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("GET", "/nope"), ("POST", "/"), ("GET", "/v1/models"), ("PUT", "/score")]
)
def test_every_answer_has_an_id_of_its_own(client: TestClient, method: str, path: str) -> None:
    ids = {client.request(method, path).headers["x-request-id"] for _ in range(3)}

    assert len(ids) == 3


@pytest.mark.parametrize("header", ["x-request-id", "x-ms-client-request-id"])
def test_the_clients_id_comes_back(client: TestClient, header: str) -> None:
    response = client.post("/score", json={}, headers={header: "My_request-1.2"})

    assert response.headers["x-request-id"] == "My_request-1.2"
    assert response.headers[header] == "My_request-1.2"


@pytest.mark.parametrize(
    ("sent", "returned"), [(b"a b\tc", "abc"), (b"x" * 500, "x" * 64), (b"<b>\xff{}", "b"), (b"a:b/c", "abc")]
)
def test_an_id_is_cleaned_and_cut(client: TestClient, sent: bytes, returned: str) -> None:
    assert client.get("/health", headers={"x-request-id": sent}).headers["x-request-id"] == returned


def test_an_id_of_nothing_usable_is_replaced(client: TestClient) -> None:
    assert len(client.get("/health", headers={"x-request-id": "???"}).headers["x-request-id"]) == 32
