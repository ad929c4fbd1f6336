"""`--secret KEY` asks for the value on a real terminal, which shows nothing of it."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

from tests.e2e.online_client import WORKSPACE, OnlineClient
from tests.online_server import online_server

CREATE = ("connection", "create", "--name", "hub", "--secret", "HF_TOKEN")


def _on_a_terminal(data_dir: Path, typed: bytes, *arguments: str) -> tuple[str, int]:
    """What a terminal shows of a command whose prompt is answered with `typed`, and its exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(
            sys.executable,
            [sys.executable, "-c", "from safelight.cli.main import main; main()", *arguments],
            {**os.environ, "SAFELIGHT_DATA_DIR": str(data_dir), "TERM": "dumb"},
        )
    shown = b""
    while chunk := _read(terminal):
        shown += chunk
        if typed and shown.endswith(b"HF_TOKEN: "):
            os.write(terminal, typed)
            typed = b""
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_what_is_typed_at_the_prompt_is_kept_and_not_shown(tmp_path: Path) -> None:
    with online_server(tmp_path / "data") as server, OnlineClient(server) as client:
        shown, status = _on_a_terminal(tmp_path / "data", b"hf_s3cret\n", *CREATE)
        kept = client.post(f"{WORKSPACE}/connections/hub/listsecrets", headers=client.admin).json()

    assert status == 0, shown
    assert shown.startswith("HF_TOKEN: ")
    assert "s3cret" not in shown
    assert kept["properties"]["credentials"] == {"keys": {"HF_TOKEN": "hf_s3cret"}}


@pytest.mark.parametrize("typed", [b"\n", b"  \n", b"\x04"], ids=["nothing", "spaces", "Ctrl-D"])
def test_without_a_value_nothing_is_created_and_one_line_says_so(tmp_path: Path, typed: bytes) -> None:
    shown, status = _on_a_terminal(tmp_path, typed, *CREATE)

    assert status == 1
    assert shown.split("\n")[1:] == ["error: no value was given for HF_TOKEN; nothing was changed", ""]


def test_ctrl_c_at_the_prompt_ends_the_command_with_its_status(tmp_path: Path) -> None:
    shown, status = _on_a_terminal(tmp_path, b"\x03", *CREATE)

    assert status == 130
    assert shown.split("\n") == ["HF_TOKEN: ", "cancelled; nothing was changed", ""]
