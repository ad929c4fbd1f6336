"""Downloads against a hub on loopback, in each state of its gate, as a user of the command line sees them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
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


GIVEN_TOKEN = """
import sys
from safelight import errors, hub
try:
    print(hub.download(sys.argv[1], token=sys.stdin.read()))
except errors.DownloadError as error:
    print(error.message)
    sys.exit(1)
"""
REPORTED_DOWNLOAD = """
import sys
from safelight import hub
hub.download(sys.argv[1], report=print)
"""
OWN_DISK = ("unshare", "--user", "--map-root-user", "--mount")
COMMAND_LINE = """
import sys
sys.stderr = sys.stdout
from safelight.cli.download import download
download(sys.argv[1], sys.argv[2] or None)
"""
MAY_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run([*OWN_DISK, "true"], capture_output=True, check=False).returncode == 0
)


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
    script: str = DOWNLOAD,
    prefix: Sequence[str] = (),
    input: str = "",
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
    command = [*prefix, sys.executable, "-c", script, repo, revision]
    done = subprocess.run(
        command, env=environment, input=input, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
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


@pytest.mark.parametrize("token", ["hf_two\nlines", "hf_sécret", "hf_with space"])
def test_a_token_that_can_be_none_is_refused_without_being_repeated(folder: Path, tmp_path: Path, token: str) -> None:
    """httpx would repeat a header that it cannot send."""
    with fake_hub(folder) as hub:
        given = download(hub, tmp_path / "cache", script=GIVEN_TOKEN, input=token)
        found = download(hub, tmp_path / "cache", token=token.replace("\n", " "))

    assert given == found
    assert given[0] == 1
    assert "give the token alone" in given[1]
    assert "hf_" not in given[1]


def test_a_token_is_taken_without_the_line_break_behind_it(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        status, output = download(hub, tmp_path / "cache", script=GIVEN_TOKEN, input=f"{GOOD_TOKEN}\n")

    assert status == 0, output


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
    assert "files that have arrived are kept" in said


def test_a_disk_that_is_too_small_is_found_out_before_the_download(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        hub.claimed_sizes["transformer/diffusion.safetensors"] = 10**18
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (status, hub.downloads) == (1, []), output
    assert re.search(rf"the disk of {tmp_path}/cache/hub .* needs 1\.0 EB more, and [\d.]+ [kMGT]B are free", output)
    assert "HF_HUB_CACHE" in output


def test_only_the_missing_files_must_fit_on_the_disk(folder: Path, tmp_path: Path) -> None:
    with fake_hub(folder) as hub:
        _, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)
        lost = Path(output) / "transformer/config.json"
        lost.resolve().unlink()
        lost.unlink()
        hub.downloads.clear()
        hub.claimed_sizes["transformer/diffusion.safetensors"] = 10**18
        status, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN)

    assert (status, hub.downloads) == (0, ["transformer/config.json"]), output


@pytest.mark.skipif(not MAY_MOUNT, reason="this machine lets no test mount a disk of its own")
def test_a_disk_that_fills_up_on_the_way_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    (folder / "transformer/diffusion.safetensors").write_bytes(b"x" * 3_000_000)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount_and_run = f'mount -t tmpfs -o size=1m tmpfs {disk} && exec "$0" "$@"'
    with fake_hub(folder, "open") as hub:
        hub.claimed_sizes["transformer/diffusion.safetensors"] = 1000
        status, output = download(hub, disk, prefix=[*OWN_DISK, "sh", "-c", mount_and_run])

    assert status == 1
    assert output.startswith(f"the disk of {disk}/hub is full before all of acme/tiny-flux has arrived"), output
    assert "HF_HUB_CACHE" in output


def test_a_report_tells_the_bytes_from_what_the_cache_has_to_all_of_them(folder: Path, tmp_path: Path) -> None:
    needed = ("model_index.json", "transformer/config.json", "transformer/diffusion.safetensors")
    total = sum((folder / name).stat().st_size for name in needed)
    with fake_hub(folder) as hub:
        _, first = download(hub, tmp_path / "cache", token=GOOD_TOKEN, script=REPORTED_DOWNLOAD)
        _, again = download(hub, tmp_path / "cache", token=GOOD_TOKEN, script=REPORTED_DOWNLOAD)

    reports = [tuple(map(int, line.split())) for line in first.splitlines()]
    assert (reports[0], reports[-1]) == ((0, total), (total, total))
    assert reports == sorted(reports)
    assert again == ""


def test_the_command_line_says_in_a_few_lines_how_far_it_is_where_there_is_no_terminal(
    folder: Path, tmp_path: Path
) -> None:
    with fake_hub(folder) as hub:
        _, output = download(hub, tmp_path / "cache", token=GOOD_TOKEN, script=COMMAND_LINE)

    first, *lines = output.splitlines()
    assert first.startswith("Fetching acme/tiny-flux"), output
    assert re.fullmatch(r"Downloading acme/tiny-flux: 0 of \d+ bytes \(0%\)", lines[0])
    assert re.fullmatch(r"Downloading acme/tiny-flux: (\d+) of \1 bytes \(100%\)", lines[-1])
    assert len(lines) == 2, output
