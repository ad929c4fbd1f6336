"""What tests of the control plane's routes share; the fixture `arm` is in `conftest.py`."""

from __future__ import annotations

import time
from collections.abc import Callable

from httpx import Response

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


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
