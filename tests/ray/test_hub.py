"""The real command and the real engine: a model of the hub, with a LoRA from there, on a node that has neither."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.pictures import open_picture
from tests.e2e.processes import running_server
from tests.fake_hub import GOOD_TOKEN
from tests.ray.cluster import what_shows
from tests.ray.conftest import SharedCluster
from tests.tiny_loras import save_lora

HUB_ID = "acme/real-flux"
LORA = Path("loras/pytorch_lora_weights.safetensors")


@pytest.fixture
def repository(tiny_flux_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    shutil.copytree(tiny_flux_folder, folder)
    save_lora(folder / "loras", base=tiny_flux_folder, has_clip=True)
    return folder


def test_a_model_of_the_hub_is_fetched_by_the_node_and_no_process_but_the_server_was_started_with_the_token(
    shared_cluster: SharedCluster, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_cluster.hub, "folder", repository)
    monkeypatch.setattr(shared_cluster.hub, "repo_id", HUB_ID)
    home = tmp_path / "gateway"
    env = {
        "HF_ENDPOINT": shared_cluster.hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": GOOD_TOKEN,
    }
    ray = ("--runtime", "ray", "--ray-address", shared_cluster.address)

    with running_server(str(repository), "--no-online-endpoints", "--lora", f"film={repository / LORA}") as server:
        pictures_here = ask(server.url)
    with running_server(HUB_ID, "--no-online-endpoints", "--lora", f"film={HUB_ID}/{LORA}", *ray, env=env) as server:
        pictures = ask(server.url)
        shown = [what_shows(each) for each in psutil.process_iter() if each.pid != server.process.pid]
    of_the_hub = [each for each in shown if shared_cluster.hub.endpoint in each]

    assert pictures == pictures_here
    assert pictures["film"] != pictures["plain"]
    assert weights_in(home) == {LORA}
    assert weights_in(*shared_cluster.homes) == {path.relative_to(repository) for path in weights_of(repository)}
    assert of_the_hub
    assert not [each for each in of_the_hub if GOOD_TOKEN in each]


def ask(url: str) -> Mapping[str, bytes]:
    """Pixels of the same picture, plain and with the LoRA."""
    pictures = {}
    for name, lora in {"plain": {}, "film": {"lora": {"name": "film"}}}.items():
        answer = httpx.post(url, json={"inputs": "a dog", "parameters": {"seed": 7} | lora}, timeout=120)
        assert answer.status_code == 200, answer.text
        pictures[name] = open_picture(answer.content).tobytes()
    return pictures


def weights_in(*homes: Path) -> set[Path]:
    """Of the model, by their place in it."""
    snapshots = [path for home in homes for path in home.glob(f"hub/models--{HUB_ID.replace('/', '--')}/snapshots/*")]
    return {path.relative_to(snapshot) for snapshot in snapshots for path in weights_of(snapshot)}


def weights_of(folder: Path) -> list[Path]:
    return [*folder.rglob("*.safetensors")]
