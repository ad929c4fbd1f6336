"""Downloads against a hub on loopback, in each state of its gate, as a user of the command line sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_hub import GOOD_TOKEN, REPO_ID, FakeHub, Gate, fake_hub

DOWNLOAD = """
import sys
from safelight import errors, hub
try:
    print(hub.download(sys.argv[1], revision=sys.argv[2] or None))
except errors.DownloadError as error:
    print(error.message)
    sys.exit(1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name in ("model_index.json", "transformer/config.json", "transformer/diffusion.safetensors", "weights.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def download(
    hub: FakeHub,
    cache: Path,
    *,
    token: str | None = None,
    repo: str = REPO_ID,
    revision: str = "",
    offline: bool = False,
) -> tuple[int, str]:
    """Exit status and output of a download in a process of its own (huggingface_hub reads HF_ENDPOINT at import)."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cache),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-c", DOWNLOAD, repo, revision]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.strip()


def test_an_accepted_token_downloads_only_the_files_the_engine_needs(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert status == 0, output
    assert (Path(output) / "transformer/diffusion.safetensors").read_text().startswith("content")
    assert sorted(hub.downloads) == ["model_index.json", "transformer/config.json", "transformer/diffusion.safetensors"]


def test_a_full_cache_serves_without_a_network(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        download(hub, tmp_path / "cache", token=GOOD_TOKEN)
    status, output = download(hub, tmp_path / "cache", offline=True)

    assert status == 0, output
    assert (Path(output) / "model_index.json").exists()


@pytest.mark.parametrize(
    ("gate", "token", "expected"),
    [
        ("accepted", None, "is gated and no token was given"),
        ("accepted", "hf_wrong", "does not accept the token"),
        ("never_requested", GOOD_TOKEN, "has never requested access"),
        ("pending", GOOD_TOKEN, "awaiting a review"),
        ("rejected", GOOD_TOKEN, "was rejected"),
        ("fine_grained", GOOD_TOKEN, "fine-grained"),
    ],
)
def test_each_refusal_of_the_gate_has_its_own_remedy(
    folder: Path, tmp_path: Path, gate: Gate, token: str | None, expected: str
) -> None:
    with fake_hub(folder, gate) as hub:
        status, output = download(hub, tmp_path / "cache", token=token)

    assert status == 1
    assert expected in output
    assert "hf_" not in output


def test_an_unknown_repository_is_named(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN, repo="acme/nothing")

    assert (status, "acme/nothing is not on" in output) == (1, True), output


def test_an_unknown_revision_is_named(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN, revision="v9")

    assert (status, "has no revision 'v9'" in output) == (1, True), output


def test_no_network_and_no_cache_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        pass
    status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert status == 1
    assert "cannot be reached" in output


def test_a_connection_that_breaks_off_says_that_the_download_can_go_on(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        hub.breaks_off = True
        broken, said = download(hub, tmp_path / "cache", token=GOOD_TOKEN)
        hub.breaks_off = False
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (broken, status) == (1, 0), output
    assert "broke off" in said
    assert "goes on where it stopped" in said
