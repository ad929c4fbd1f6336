"""A server that ends and starts again over a disk that takes nothing more: the kernel lets no file grow."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from tests.e2e.online_client import OnlineClient, register_tiny_model
from tests.online_server import online_server
from tests.waiting import eventually

LIMIT = 64 * 1024
"""SQLite has to be let make the index of its log anew (32 KiB) to open a database at all."""
LIMITED = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, resource.RLIM_INFINITY))
os.execv(sys.argv[1], sys.argv[1:])
"""
OVER_A_FULL_DISK = (sys.executable, "-c", LIMITED)
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_a_server_that_was_killed_starts_over_a_full_disk_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with online_server(tmp_path / "data") as server:
        with OnlineClient(server) as client:
            register_tiny_model(client, tmp_path / "model")
            client.arm("PUT", "/connections/hub", {"properties": {"credentials": {"keys": {"A": "a-secret"}}}})
            client.create_endpoint(properties={"enforce_access_to_default_secret_stores": "enabled"})
            client.deploy(environmentVariables={"A": "${{azureml://connections/hub/credentials/A}}"})
            client.create_endpoint(traffic={"blue": 100})
            key, port = client.key(), server.port
            job = client.draw(key, prefer="respond-async").headers["location"]
        server.kill()

    with online_server(tmp_path / "data", port=port, by=OVER_A_FULL_DISK) as server, OnlineClient(server) as client:
        eventually(lambda: client.draw(None, "/score").status_code == 200)
        refused = [client.arm("PUT", "/onlineEndpoints/other", {"properties": {}}) for _ in range(3)]
        not_yet = client.draw(key)
        ready = client.get("/health/ready")
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, NO_LIMIT)
        drawn = client.wait_until_it_draws(key)
        eventually(lambda: client.get(job, headers={"Authorization": f"Bearer {key}"}).json()["state"] == "succeeded")
        created = client.arm("PUT", "/onlineEndpoints/other", {"properties": {}})

    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert [each.status_code for each in refused] == [503] * 3
    assert "the database takes no writes" in refused[0].json()["error"]["message"]
    assert "the database takes no writes" in ready.json()["storage"]
    assert (not_yet.status_code, drawn.status_code, created.status_code) == (503, 200, 201)
    assert [each.partition(":")[0] for each in server.log if "takes no writes" in each] == [
        "the database takes no writes"
    ]
    assert not [each for each in server.log if "Traceback" in each]
