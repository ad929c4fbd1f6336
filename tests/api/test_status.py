from __future__ import annotations

from collections.abc import Callable

from httpx import Response
from starlette.testclient import TestClient

from tests.api.control_plane import WORKSPACE, put_deployment, put_endpoint


def test_a_status_has_the_servers_own_model_and_every_deployment_with_what_it_made(
    arm: Callable[..., Response], stranger: TestClient
) -> None:
    put_endpoint(arm)
    put_deployment(arm)
    key = arm("POST", "/onlineEndpoints/flux/listKeys").json()["primaryKey"]
    body = {"inputs": "a fox", "parameters": {"num_images_per_prompt": 1}}
    headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": "blue"}
    assert stranger.post("/endpoints/flux/score", json=body, headers=headers).status_code == 200

    def read() -> dict[str, object]:
        own, blue = arm("GET", "/status").json()["deployments"]
        assert own["endpoint"] is None
        return dict(blue)

    while not (blue := read())["pictures"]:
        pass
    assert (blue["endpoint"], blue["name"], blue["traffic"], blue["queued"]) == ("flux", "blue", 0, 0)
    assert [each["state"] for each in blue["replicas"]] == ["ready"]  # type: ignore[attr-defined]


def test_a_status_is_for_the_administrator(stranger: TestClient) -> None:
    assert stranger.get(f"{WORKSPACE}/status").status_code == 401
