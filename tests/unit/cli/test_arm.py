"""The way to a running server, where there is none, or another one."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from safelight.cli import arm
from safelight.cli.arm import Arm, RequestRefused
from safelight.errors import ConfigurationError
from tests.odd_server import answering


def over(data_dir: Path, url: str) -> Arm:
    (data_dir / "server.json").write_text(json.dumps({"url": url}))
    (data_dir / "admin-token").write_text("token")
    return Arm(data_dir)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "https://127.0.0.1:9", "http://127.0.0.1:x", "ftp://x", "", "a b"]
)
def test_no_server_at_an_address_is_said_with_the_remedy(tmp_path: Path, url: str) -> None:
    with pytest.raises(RequestRefused, match=r"no server answers at .*; start one with `safelight serve`"):
        over(tmp_path, url).get("/models")


@pytest.mark.parametrize("token", [b"", b"s3cret\nmore", "s3crét".encode(), b"s3cret\xff"])
def test_a_file_that_holds_no_token_is_told_without_what_it_holds(tmp_path: Path, token: bytes) -> None:
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9"}))
    (tmp_path / "admin-token").write_bytes(token)

    with pytest.raises(ConfigurationError, match="holds no administrator's token") as refusal:
        Arm(tmp_path)

    assert "s3cr" not in refusal.value.message


@pytest.mark.parametrize("address", ["{}", "[]", '{"url": 7}', '{"url": "http://a", "certificate": 7}', "\xff"])
def test_a_file_that_holds_no_address_is_as_good_as_none(tmp_path: Path, address: str) -> None:
    (tmp_path / "server.json").write_text(address, encoding="latin-1")
    (tmp_path / "admin-token").write_text("token")

    with pytest.raises(ConfigurationError, match="no server has been started over"):
        Arm(tmp_path)


def test_a_server_that_hangs_up_is_none(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        with pytest.raises(RequestRefused, match="no server answers"):
            over(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}").get("/models")
        thread.join()


def test_a_server_that_never_answers_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm, "TIMEOUT_S", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(RequestRefused, match=r"no server answers at .* \(timed out\)"),
    ):
        over(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}").get("/models")


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    with (
        answering(b"", resources=b"<html>") as url,
        pytest.raises(RequestRefused, match=f"what answers at {url} is no server of ours"),
    ):
        over(tmp_path, url).get("/models")
