"""How `safelight bench` ends before its time, or where nobody listens to it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bare_server import HANG, bare_server, picture
from tests.e2e.processes import SAFELIGHT, environment
from tests.waiting import eventually


def test_ctrl_c_ends_it_with_what_was_measured(tmp_path: Path) -> None:
    with bare_server(lambda number: picture(0) if number < 3 else HANG) as server:
        command = [str(SAFELIGHT), "bench", server.url, "--warm-up", "0", "--json", str(tmp_path / "run.json")]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        eventually(lambda: len(server.requests) == 4)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)

    made = json.loads((tmp_path / "run.json").read_text())["servers"][0]
    assert (process.returncode, errors) == (0, b"")
    assert b"stopped after" in out
    assert (made["pictures"], made["unfinished"], made["is_stopped"]) == (2, 1, True)


def test_a_second_signal_ends_it_at_once_with_what_was_measured(tmp_path: Path) -> None:
    with bare_server(lambda number: picture(0) if number < 3 else HANG) as server:
        command = [str(SAFELIGHT), "bench", server.url, "--warm-up", "0", "--json", str(tmp_path / "run.json")]
        process = subprocess.Popen(
            [*command, "--requests", "9"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        eventually(lambda: len(server.requests) == 4)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)

    made = json.loads((tmp_path / "run.json").read_text())["servers"][0]
    assert (process.returncode in (0, 130), errors) == (True, b"")  # 0: the second came when all was over
    assert b"stopped after" in out
    assert (made["pictures"], made["unfinished"], made["is_stopped"]) == (2, 1, True)


@pytest.mark.parametrize("is_json_out", [False, True])
def test_files_are_written_though_nobody_reads_what_is_printed(tmp_path: Path, is_json_out: bool) -> None:
    command = [str(SAFELIGHT), "bench", "--warm-up", "0", "--requests", "2", "--plot", str(tmp_path / "run.svg")]
    out = "-" if is_json_out else str(tmp_path / "run.json")
    with bare_server(picture) as server:
        process = subprocess.Popen(
            [*command, server.url, "--json", out], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.close()
        _, errors = process.communicate(timeout=60)

    assert process.returncode != 0
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors
    ElementTree.parse(tmp_path / "run.svg")
    assert is_json_out or json.loads((tmp_path / "run.json").read_text())["servers"]


def test_what_lacks_on_this_machine_is_no_failure_of_the_server() -> None:
    with bare_server(picture) as server:
        few = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", str(SAFELIGHT), "bench", server.url, "--json", "-"]
        done = subprocess.run(
            [*few, "--clients", "60", "--warm-up", "0", "--requests", "60"],
            env=environment(),
            capture_output=True,
            timeout=120,
            check=False,
        )

    kinds = json.loads(done.stdout)["servers"][0]["error_kinds"]
    assert [each["status"] for each in kinds] == ["not sent"]
    assert "ulimit -n" in kinds[0]["message"]


def test_ctrl_c_while_it_warms_up_says_that_nothing_was_measured() -> None:
    with bare_server(lambda number: picture(0) if number < 3 else HANG) as server:
        command = [str(SAFELIGHT), "bench", server.url, "--warm-up", "600"]
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        eventually(lambda: len(server.requests) == 4)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)

    assert (process.returncode, out) == (1, b"")
    assert b"stopped before anything was measured" in errors


def test_ctrl_c_before_anything_is_measured_ends_it_at_once() -> None:
    with bare_server(lambda _: HANG) as server:
        process = subprocess.Popen([str(SAFELIGHT), "bench", server.url], env=environment(), stderr=subprocess.PIPE)
        eventually(lambda: len(server.requests) == 1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (130, b"")
