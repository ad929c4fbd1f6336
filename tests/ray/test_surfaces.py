"""What clients get over HTTP: the same from replicas on a cluster as from those of one machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.e2e.online_client import PROMPT, OnlineClient, register_tiny_model
from tests.online_server import online_server
from tests.ray.conftest import SharedCluster
from tests.waiting import eventually

ENDPOINT = "/endpoints/flux"
STREAM = {"prompt": "a fox", "size": "64x64", "seed": 7, "stream": True, "partial_images": 2, "step_events": True}
IDLE_S = "1"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    file = tmp_path / "film.safetensors"
    file.write_bytes(b"FakeEngine reads no LoRA")
    return file


@pytest.fixture
def answers_of_one_machine(tmp_path: Path, lora: Path) -> Mapping[str, Any]:
    with online_server(tmp_path / "local") as server, OnlineClient(server) as client:
        return ask_for_all(client, deploy(client, tmp_path, lora))


@pytest.fixture
def on_ray(shared_cluster: SharedCluster, tmp_path: Path) -> Iterator[OnlineClient]:
    settings = {"SAFELIGHT_RUNTIME": "ray", "SAFELIGHT_RAY_ADDRESS": shared_cluster.address}
    with online_server(tmp_path / "ray", settings) as server, OnlineClient(server) as client:
        yield client


def test_streams_edits_jobs_and_loras_are_those_of_one_machine_and_who_is_not_asked_leaves_memory(
    on_ray: OnlineClient, answers_of_one_machine: Mapping[str, Any], tmp_path: Path, lora: Path
) -> None:
    key = deploy(on_ray, tmp_path, lora, SAFELIGHT_IDLE_UNLOAD=IDLE_S)
    pid = replica_of(on_ray, key).get("pid")

    assert ask_for_all(on_ray, key) == answers_of_one_machine
    eventually(lambda: replica_of(on_ray, key)["state"] == "unloaded")
    eventually(lambda: not psutil.pid_exists(pid))
    assert on_ray.get(f"{ENDPOINT}/health/ready", headers=bearer(key)).status_code == 200
    assert on_ray.draw(key).json() == answers_of_one_machine["picture"]  # it comes back for who asks
    eventually(lambda: replica_of(on_ray, key)["state"] == "unloaded")
    assert job_of(on_ray, key) == answers_of_one_machine["job"]


def deploy(client: OnlineClient, folder: Path, lora: Path, **variables: str) -> str:
    """The key of an endpoint that serves FakeEngine with a LoRA."""
    register_tiny_model(client, folder / "model")
    client.create_endpoint()
    deployed = client.deploy(environmentVariables={"SAFELIGHT_LORAS": f"film={lora}:0.5"} | variables)
    assert deployed["status"] == "Succeeded", deployed
    client.create_endpoint(traffic={"blue": 100})
    return client.key()


def ask_for_all(client: OnlineClient, key: str) -> Mapping[str, Any]:
    streamed = client.post(f"{ENDPOINT}/v1/images/generations", headers=bearer(key), json=STREAM)
    edited = client.post(
        f"{ENDPOINT}/v1/images/edits",
        headers=bearer(key),
        data={"prompt": "a fox", "size": "64x64", "seed": "7"},
        files={"image": ("red.png", red_png(), "image/png")},
    )
    with_lora = {**PROMPT, "parameters": {**PROMPT["parameters"], "loras": [{"name": "film"}]}}
    return {
        "stream": sorted(shape_of(line) for line in streamed.text.splitlines() if line.startswith("data: {")),
        "edit": edited.json()["data"][0]["b64_json"],
        "job": job_of(client, key),
        "lora": client.draw(key, body=with_lora).json(),
        "picture": client.draw(key).json(),
    }


def shape_of(line: str) -> list[str]:
    """Sorted: whether a step or a preview is told first, the threads decide that write image files."""
    event = json.loads(line.removeprefix("data: "))
    return [str(event.get(name)) for name in ("type", "step_index", "partial_image_index", "b64_json")]


def job_of(client: OnlineClient, key: str) -> object:
    """The result of one."""
    accepted = client.draw(key, prefer="respond-async").headers["location"]
    eventually(lambda: client.get(accepted, headers=bearer(key)).json()["state"] == "succeeded")
    return client.get(f"{accepted}/result", headers=bearer(key)).json()


def replica_of(client: OnlineClient, key: str) -> Mapping[str, Any]:
    health = client.get(f"{ENDPOINT}/health/ready", headers=bearer(key)).json()
    replica: Mapping[str, Any] = health["replicas"][0]
    return replica


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def red_png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return file.getvalue()
