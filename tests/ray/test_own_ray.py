"""A server that starts a Ray of its own: the real command, the real model, on this machine alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.pictures import open_picture
from tests.e2e.processes import run_safelight, running_server
from tests.ray.cluster import what_shows

SECRET = "hf_for-nobody-else"
COLD = True
"""What runs on other nodes is not forked here: see `tests.warm`."""
REQUEST = {"inputs": "a red apple", "parameters": {"seed": 7}}


@pytest.fixture
def short_folder() -> Iterator[str]:
    """The names of Ray's sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="safelight-ray-", dir="/tmp") as folder:
        yield folder


def test_it_draws_what_a_server_without_ray_draws_listens_on_loopback_alone_shows_no_secret_and_leaves_nothing(
    tmp_path: Path, short_folder: str
) -> None:
    pictures = {}
    for runtime in ("local", "ray"):
        options = ("--runtime", runtime, "--no-online-endpoints", "--data-dir", str(tmp_path), "--num-threads", "1")
        env = {"RAY_TMPDIR": short_folder, "HF_TOKEN": SECRET, "SAFELIGHT_ENCRYPTION_KEYS": SECRET}
        with running_server(*options, env=env) as server:
            answer = httpx.post(server.url, json=REQUEST, timeout=120)
            pictures[runtime] = open_picture(answer.content).tobytes()
            processes = psutil.Process(server.process.pid).children(recursive=True)
            shown = [what_shows(each) for each in processes]
            addresses = {
                connection.laddr.ip
                for process in processes
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            }
        _, left = psutil.wait_procs(processes, timeout=30)
        assert not left

    assert pictures["ray"] == pictures["local"]
    assert not [each for each in shown if SECRET in each]
    assert addresses
    assert all(address.removeprefix("::ffff:") == "127.0.0.1" for address in addresses)


def test_a_ray_that_does_not_start_is_an_error_with_a_remedy_and_leaves_nothing(
    tmp_path: Path, short_folder: str
) -> None:
    env = {"RAY_TMPDIR": short_folder, "RAY_gcs_server_port_wait_time_s": "0"}
    ended = run_safelight("serve", "--runtime", "ray", "--data-dir", str(tmp_path), "--port", "0", env=env)

    assert ended.returncode == 1
    assert "error: ray_address (none): Timed out waiting" in ended.stderr
    assert "needs a short path for its sockets (RAY_TMPDIR=/tmp)" in ended.stderr
    assert "Traceback" not in ended.stderr
    _, left = psutil.wait_procs(
        [each for each in psutil.process_iter() if short_folder in what_shows(each)], timeout=30
    )
    assert not left
