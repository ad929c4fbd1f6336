"""The order of Azure's walkthrough by REST, from the endpoint on: what is begun is waited for by a URL in the body."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.e2e.online_client import WORKSPACE, OnlineClient, register_tiny_model
from tests.online_server import online_server

MODEL = f"{WORKSPACE}/models/tiny/versions/1"


def wait(admin: OnlineClient, begun: httpx.Response) -> None:
    """As the walkthrough does: the headers are not read."""
    assert begun.is_success, begun.text
    url = begun.json()["properties"]["properties"]["AzureAsyncOperationUri"]
    while (status := admin.get(url, headers=admin.admin).json())["status"] not in ("Succeeded", "Failed"):
        time.sleep(0.02)
    assert status["status"] == "Succeeded", status


def test_the_walkthrough_ends_in_a_picture(tmp_path: Path) -> None:
    endpoint: dict[str, Any] = {
        "identity": {"type": "systemAssigned"},
        "properties": {"authMode": "AMLToken"},
        "location": "westus2",
    }
    deployment: dict[str, Any] = {
        "location": "westus2",
        "sku": {"capacity": 1, "name": "default"},
        "properties": {
            "endpointComputeType": "Managed",
            "instanceType": "Standard_DS3_v2",
            "model": MODEL,
            "codeConfiguration": {"codeId": f"{WORKSPACE}/codes/score/versions/1", "scoringScript": "score.py"},
            "environmentId": f"{WORKSPACE}/environments/env/versions/1",
        },
    }

    with online_server(tmp_path / "online") as server, OnlineClient(server) as admin:
        register_tiny_model(admin, tmp_path / "model")
        wait(admin, admin.arm("PUT", "/onlineEndpoints/rest", endpoint))
        wait(admin, admin.arm("PUT", "/onlineEndpoints/rest/deployments/blue", deployment))
        wait(admin, admin.arm("PATCH", "/onlineEndpoints/rest", {"properties": {"traffic": {"blue": 100}}}))
        shown = admin.arm("GET", "/onlineEndpoints/rest").json()["properties"]
        token = admin.arm("POST", "/onlineEndpoints/rest/token").json()["accessToken"]
        answer = admin.draw(token, shown["scoringUri"])
        logs = admin.arm("POST", "/onlineEndpoints/rest/deployments/blue/getLogs", {"tail": 100}).json()["content"]

        assert Image.open(io.BytesIO(base64.b64decode(answer.json()))).size == (64, 64)
        assert "code_configuration has no effect" in logs
        assert admin.finish(admin.arm("DELETE", "/onlineEndpoints/rest"))["status"] == "Succeeded"
