"""Jobs against real processes: sprite draws them, `kill -9` interrupts them, curl polls them."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.online_client import OnlineClient, register_tiny_model
from tests.e2e.pictures import open_picture
from tests.e2e.processes import Server, running_server
from tests.fakes import Gate
from tests.online_server import online_server
from tests.waiting import eventually
from tests.webhook_receiver import Receiver, receiving

ASYNC = {"Prefer": "respond-async"}
TIMEOUT_S = 240
LONG = {"inputs": "a red apple", "parameters": {"seed": 9, "num_inference_steps": 30, "width": 384, "height": 384}}
SOME = {"inputs": "a red apple", "parameters": {"seed": 9, "num_inference_steps": 16, "width": 384, "height": 384}}
SHORT = {"inputs": "a red apple", "parameters": {"num_inference_steps": 2, "width": 128, "height": 128}}
JSON = ("-H", "Content-Type: application/json", "-d")
KEY = {"Authorization": "Bearer a-secret-key"}


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Any]:
    """`safelight serve` over one data directory, which a test may start again."""
    (tmp_path / "key.txt").write_text("a-secret-key")
    env = {"SAFELIGHT_DATA_DIR": str(tmp_path / "data"), "SAFELIGHT_WEBHOOKS_TO_PRIVATE_ADDRESSES": "true"}
    return lambda: running_server("--num-threads", "1", "--api-key-file", str(tmp_path / "key.txt"), env=env)


def poll(url: str) -> dict[str, Any]:
    return dict(httpx.get(url, headers=KEY, timeout=60).json())


def metrics_of(server: Server) -> str:
    return httpx.get(f"{server.url}/metrics", headers=KEY, timeout=60).text


def at(server: Server, url: str) -> str:
    """A path, or the link of a server that had another port before."""
    return server.url + httpx.URL(url).raw_path.decode()


def test_a_job_that_was_killed_under_way_ends_as_if_nothing_had_been(start: Callable[..., Any]) -> None:
    headers = KEY | ASYNC | {"Idempotency-Key": "order-1", "Webhook-Url": ""}
    with receiving(Receiver()) as receiver:
        headers["Webhook-Url"] = receiver.url
        with start() as server:
            running = httpx.post(f"{server.url}/", json=SOME, headers=headers, timeout=60)
            queued = [httpx.post(f"{server.url}/score", json=SHORT, headers=KEY | ASYNC, timeout=60) for _ in range(5)]
            eventually(lambda: (poll(at(server, running.headers["location"]))["step"] or 0) > 2, timeout_s=TIMEOUT_S)
            server.process.kill()

        with start() as server:
            url = at(server, running.headers["location"])
            again = httpx.post(f"{server.url}/", json=SOME, headers=headers, timeout=60)
            eventually(lambda: poll(url)["state"] == "succeeded", timeout_s=TIMEOUT_S)
            for response in queued:
                link = at(server, response.headers["location"])
                eventually(lambda link=link: poll(link)["state"] == "succeeded", timeout_s=TIMEOUT_S)  # type: ignore[misc]
            result = httpx.get(f"{url}/result", headers=KEY, timeout=60)
            answer = httpx.post(f"{server.url}/", json=SOME, headers=KEY, timeout=TIMEOUT_S)
            secret = httpx.get(f"{server.url}/webhook-secret", headers=KEY, timeout=60).json()["secret"]
            eventually(lambda: len(receiver.deliveries) > 0)

    assert running.status_code == again.status_code == 202
    assert again.json()["id"] == running.json()["id"]
    assert open_picture(result.content).tobytes() == open_picture(answer.content).tobytes()
    assert result.headers["x-safelight-parameters"] == answer.headers["x-safelight-parameters"]
    assert receiver.deliveries[0].is_signed_with(secret)
    assert receiver.deliveries[0].json()["data"]["id"] == running.json()["id"]


def test_a_retry_after_a_lost_connection_does_not_pay_twice(start: Callable[..., Any]) -> None:
    headers = KEY | {"Idempotency-Key": "order-1", "Accept": "image/png"}
    with start() as server:
        lost = httpx.Request("POST", f"{server.url}/", json=SOME, headers=headers)
        with socket.create_connection((lost.url.host, lost.url.port), timeout=60) as connection:
            fields = "".join(f"{name}: {value}\r\n" for name, value in lost.headers.items())
            connection.sendall(f"POST / HTTP/1.1\r\n{fields}\r\n".encode() + lost.content)
            eventually(lambda: 'safelight_jobs{state="running"} 1.0' in metrics_of(server))
        retried = httpx.post(f"{server.url}/", json=SOME, headers=headers, timeout=TIMEOUT_S)
        metrics = metrics_of(server)

    assert retried.status_code == 200
    assert retried.headers["idempotent-replayed"] == "true"
    assert open_picture(retried.content).size == (384, 384)
    assert "safelight_steps_run_total 16.0" in metrics
    assert "safelight_steps_saved_total 0.0" in metrics


def test_curl_makes_polls_and_cancels_jobs(start: Callable[..., Any]) -> None:
    def curl(*arguments: str) -> dict[str, Any]:
        command = ["curl", "-sS", "-H", f"Authorization: {KEY['Authorization']}", *arguments]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True)
        return dict(json.loads(done.stdout))

    with start() as server:
        job = curl(f"{server.url}/", "-H", "Prefer: respond-async", *JSON, json.dumps(LONG))
        url = f"{server.url}/jobs/{job['id']}"
        eventually(lambda: curl(url)["preview"] is not None, timeout_s=TIMEOUT_S)
        preview = httpx.get(curl(url)["preview"], headers=KEY, timeout=60)
        canceled = curl("-X", "DELETE", url)
        eventually(lambda: "safelight_running 0.0" in metrics_of(server))
        status = server.stop()

    assert job["state"] in ("queued", "running")
    assert open_picture(preview.content).size == (96, 96)
    assert canceled["state"] == "canceled"
    assert status == 0
    assert "Traceback" not in server.text


def test_a_job_of_an_endpoint_survives_a_kill_and_a_new_key_and_is_the_endpoints_alone(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    (tmp_path / "model").mkdir()
    env = {"FAKE_ENGINE_GATE": str(gate.path)}
    with online_server(tmp_path / "data", env) as server:
        with OnlineClient(server) as client:
            register_tiny_model(client, tmp_path / "model")
            client.create_endpoint()
            client.deploy()
            client.create_endpoint(traffic={"blue": 100})
            client.create_endpoint("other")
            key, other = client.key(), client.key("other")
            accepted = client.draw(key, prefer="respond-async")
            by_key = client.draw(key, "/score", prefer="respond-async")
            path = httpx.URL(accepted.headers["location"]).path
            gate.allow(1)
            eventually(lambda: client.get(path, headers=bearer(key)).json()["state"] == "running")
            assert client.get(path).status_code == 401
            assert client.get(path, headers=bearer(other)).status_code == 401
            assert client.get(path.replace("/flux/", "/other/"), headers=bearer(other)).status_code == 404
            assert client.get(path.removeprefix("/endpoints/flux"), headers=bearer(key)).status_code == 200
        server.kill()

    gate.open()
    with online_server(tmp_path / "data", env) as server, OnlineClient(server) as client:
        client.arm("POST", "/onlineEndpoints/flux/regenerateKeys", {"keyType": "Primary"})
        assert client.get(path, headers=bearer(key)).status_code == 401
        key = client.key()
        for response in (accepted, by_key):
            link = httpx.URL(response.headers["location"]).path
            eventually(
                lambda link=link: client.get(link, headers=bearer(key)).json()["state"] == "succeeded"  # type: ignore[misc]
            )
        result = client.get(f"{path}/result", headers=bearer(key))
        answer = client.draw(key)
        client.finish(client.arm("DELETE", "/onlineEndpoints/flux"))
        client.create_endpoint()
        assert client.get(path, headers=bearer(client.key())).status_code == 404

    assert path.startswith("/endpoints/flux/jobs/")
    assert (result.status_code, result.content) == (200, answer.content)
    assert result.headers["azureml-model-deployment"] == "blue"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
