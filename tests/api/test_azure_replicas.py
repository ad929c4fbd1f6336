"""What a deployment that serves says of its replicas, which are processes."""

from __future__ import annotations

from collections.abc import Callable

from httpx import Response

from tests.api.control_plane import put_deployment, put_endpoint


def test_a_deployment_that_serves_says_what_its_replicas_do(arm: Callable[..., Response]) -> None:
    put_endpoint(arm)
    path = "/onlineEndpoints/flux/deployments/blue"

    created = arm("PUT", path, {"properties": {"model": "sprite"}})
    put_deployment(arm)

    assert created.json()["properties"]["replicas"] == []
    (replica,) = arm("GET", path).json()["properties"]["replicas"]
    assert isinstance(replica.pop("pid"), int)
    assert replica == {"name": "replica 0", "state": "ready", "detail": "", "restarts": 0}
    (listed,) = arm("GET", "/onlineEndpoints/flux/deployments").json()["value"]
    assert len(listed["properties"]["replicas"]) == 1
