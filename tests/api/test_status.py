"""What the server tells of its deployments: to its administrator, and to Prometheus at one address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.api.control_plane import WORKSPACE, Standing, put_deployment, put_endpoint, standing_server
from tests.waiting import eventually

Arm = Callable[..., Response]


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Standing]:
    """One for each test: it counts."""
    with standing_server(tmp_path) as standing:
        yield standing


def make_a_picture(arm: Arm, stranger: TestClient) -> None:
    put_endpoint(arm)
    put_deployment(arm)
    headers = {"Authorization": f"Bearer {key_of(arm)}", "azureml-model-deployment": "blue"}
    assert stranger.post("/endpoints/flux/score", json={"inputs": "a fox"}, headers=headers).status_code == 200


def key_of(arm: Arm) -> str:
    return str(arm("POST", "/onlineEndpoints/flux/listKeys").json()["primaryKey"])


def samples(client: TestClient) -> list[tuple[str, dict[str, str], float]]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return [(each.name, each.labels, each.value) for family in families for each in family.samples]


def test_a_status_has_the_servers_own_model_and_every_deployment_with_what_it_made(
    arm: Arm, stranger: TestClient
) -> None:
    make_a_picture(arm, stranger)

    def read() -> dict[str, Any]:
        own, blue = arm("GET", "/status").json()["deployments"]
        assert own["endpoint"] is None
        return dict(blue)

    eventually(lambda: read()["pictures"] == 1)
    blue = read()
    assert (blue["endpoint"], blue["name"], blue["traffic"], blue["ready"], blue["queued"]) == (
        "flux",
        "blue",
        0,
        True,
        0,
    )
    assert [(each["state"], each["restarts"]) for each in blue["replicas"]] == [("ready", 0)]
    assert blue["latency"]["+Inf"] == 1


def test_a_status_is_for_the_administrator(stranger: TestClient) -> None:
    assert stranger.get(f"{WORKSPACE}/status").status_code == 401


def test_the_servers_metrics_have_those_of_its_deployments_beside_its_own(arm: Arm, stranger: TestClient) -> None:
    make_a_picture(arm, stranger)
    headers = {"Authorization": "Bearer wrong"}
    stranger.post("/endpoints/flux/v1/images/generations", json={"prompt": "a"}, headers=headers)

    told = samples(stranger)
    place = {"endpoint": "flux", "deployment": "blue"}
    assert ("safelight_ready", {}, 1) in told
    assert ("safelight_ready", place, 1) in told
    assert ("safelight_stage_seconds_count", {"stage": "decode", **place}, 1) in told
    assert ("safelight_requests_total", {"dialect": "huggingface", "status": "200", **place}, 1) in told
    refused = {"dialect": "openai", "status": "401", "endpoint": "flux", "deployment": ""}
    assert ("safelight_requests_total", refused, 1) in told
    assert ("safelight_request_seconds_count", {"dialect": "huggingface", **place}, 1) in told
    assert not [
        labels for name, labels, _ in told if name == "safelight_requests_total" and labels["dialect"] == "other"
    ]


def test_an_endpoint_that_does_not_exist_makes_no_series_of_its_own(arm: Arm, stranger: TestClient) -> None:
    put_endpoint(arm)
    for name in ("a", "b", "c"):
        headers = {"Authorization": f"Bearer {key_of(arm)}"}
        assert stranger.post(f"/endpoints/{name}/score", json={"inputs": "a"}, headers=headers).status_code == 404

    assert {labels.get("endpoint") for _, labels, _ in samples(stranger)} == {None}
