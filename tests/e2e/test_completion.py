"""What a shell completes: commands, options and files, and the names that the catalogue and a running server have."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safelight.cli.arm import Arm
from safelight.cli.az.resource_files import connection_body, deployment_body, endpoint_body
from safelight.cli.main import main
from safelight.model.catalog import sprite_folder
from tests.e2e.processes import SAFELIGHT, environment
from tests.odd_server import answering
from tests.online_server import OnlineServer, online_server

FLUX = "black-forest-labs-flux.1-schnell"
Complete = Callable[..., list[str]]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineServer]:
    """A server with one or two of everything that has a name."""
    with online_server(tmp_path_factory.mktemp("online")) as server:
        arm = Arm(server.data_dir)
        arm.put("/models/mine/versions/next", {"properties": {"modelUri": str(sprite_folder())}})
        arm.put("/connections/hub-token", connection_body({}, {"HF_TOKEN": "secret"}))
        for endpoint in ("flux-one", "other"):
            arm.wait(arm.put(f"/onlineEndpoints/{endpoint}", endpoint_body({})), "")
        arm.wait(arm.put("/onlineEndpoints/flux-one/deployments/blue", deployment_body({"model": "sprite"})), "")
        yield server


@pytest.fixture
def complete(names: OnlineServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """The candidates for the end of a line, as typer's scripts ask for them; nothing is printed beside them."""
    monkeypatch.setattr("safelight.cli.completion.TIMEOUT_S", 60.0)  # a machine may have much else to do

    def complete(line: str, *, shell: str = "bash", data_dir: Path = names.data_dir, **more: str) -> list[str]:
        asked = {"_SAFELIGHT_COMPLETE": f"complete_{shell}", "SAFELIGHT_DATA_DIR": str(data_dir)}
        asked |= {"COMP_WORDS": line.replace(" ", "\n"), "COMP_CWORD": str(line.count(" "))}
        asked |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        for name, value in (asked | more).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["safelight"])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        assert (caught.value.code, printed.err) == (0, "")
        return printed.out.split()

    return complete


def _run(command: list[str], data_dir: Path, more: dict[str, str] | None = None) -> str:
    """What a command prints; not a word on standard error."""
    env = environment({"SAFELIGHT_DATA_DIR": str(data_dir)} | (more or {}))
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("safelight ", ["serve", "generate", "inspect", "replay", "bench", "model", "status"]),
        ("safelight online-", ["online-endpoint", "online-deployment"]),
        ("safelight online-endpoint re", ["regenerate-keys"]),
        ("safelight online-deployment create --endpoint", ["--endpoint-name", "--endpoint"]),
        ("safelight model show ", ["sprite", FLUX, "mine"]),
        ("safelight model show -n m", ["mine"]),
        ("safelight serve ", ["sprite", FLUX]),
        ("safelight generate --model s", ["sprite"]),
        ("safelight replay a.png --model b", [FLUX]),
        ("safelight online-deployment create --model mi", ["mine"]),
        ("safelight connection show -n ", ["hub-token"]),
        ("safelight online-endpoint delete --name ", ["flux-one", "other"]),
        ("safelight online-endpoint update --name o", ["other"]),
        ("safelight online-deployment list -e ", ["flux-one", "other"]),
        ("safelight online-deployment show -e flux-one -n ", ["blue"]),
        ("safelight online-endpoint invoke -n flux-one --deployment-name b", ["blue"]),
        ("safelight online-deployment get-logs -n ", []),
        ("safelight online-deployment show -e ../connections -n ", []),
        ("safelight online-endpoint show -n x -o ", ["table", "json", "yaml"]),
        ("safelight online-endpoint create -f ", []),
        ("safelight --version ", ["serve", "generate", "inspect", "replay", "bench", "model", "status"]),
        ("safelight nonsense ", ["serve", "generate", "inspect", "replay", "bench", "model", "status"]),
        ("safelight online-endpoint show --nonsense -n ", ["flux-one", "other"]),
    ],
)
def test_a_line_goes_on_with(complete: Complete, line: str, expected: list[str]) -> None:
    assert complete(line)[: len(expected) or None] == expected


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("bash", ["flux-one", "other"]),
        ("zsh", ["_arguments", "'*:", ':(("flux-one"', '"other"))\'']),
        ("fish", ["flux-one", "other"]),
    ],
)
def test_every_shell_is_told_the_names(complete: Complete, shell: str, expected: list[str]) -> None:
    assert complete("safelight online-endpoint show -n ", shell=shell) == expected


def test_the_data_directory_may_stand_in_the_line(complete: Complete, names: OnlineServer, tmp_path: Path) -> None:
    line = f"safelight online-endpoint show --data-dir {names.data_dir} -n fl"

    assert complete(line, data_dir=tmp_path) == ["flux-one"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"[" * 100_000,
        b"\xff",
        b"[]",
        b'{"error": {"message": "a wrong token"}}',
        b'{"value": [{}]}',
        b'{"value": [{"name": ["a"]}, {"name": "$(touch /tmp/hacked)"}, {"name": "two words"}, {"name": "a\\nb"}]}',
    ],
)
def test_an_answer_without_names_makes_no_noise(complete: Complete, tmp_path: Path, content: bytes) -> None:
    with answering(b"", resources=content) as url:
        _write_access(tmp_path, url)

        assert complete("safelight online-endpoint show -n ", data_dir=tmp_path) == []


def test_a_server_that_never_answers_is_not_waited_for(
    complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safelight.cli.completion.TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _write_access(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")

        assert complete("safelight online-endpoint show -n ", data_dir=tmp_path) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:9", "http://127.0.0.1:x", "127.0.0.1", ""])
def test_a_server_that_is_not_there_makes_no_noise(complete: Complete, tmp_path: Path, url: str) -> None:
    _write_access(tmp_path, url)

    assert complete("safelight model show ", data_dir=tmp_path) == ["sprite", FLUX]


@pytest.mark.parametrize("missing", ["admin-token", "server.json"])
def test_a_data_directory_without_a_server_makes_no_noise(complete: Complete, tmp_path: Path, missing: str) -> None:
    _write_access(tmp_path, "http://127.0.0.1:9")
    (tmp_path / missing).unlink()

    assert complete("safelight connection show -n ", data_dir=tmp_path) == []


def _write_access(data_dir: Path, url: str) -> None:
    (data_dir / "server.json").write_text(json.dumps({"url": url}))
    (data_dir / "admin-token").write_text("token")


def test_settings_that_make_no_sense_are_no_matter_of_a_completion(complete: Complete) -> None:
    odd = {"SAFELIGHT_PORT": "no port", "SAFELIGHT_NONSENSE": "1", "SAFELIGHT_HOST": "0.0.0.0"}

    assert complete("safelight online-endpoint show -n o", **odd) == ["other"]


def test_bash_completes_after_it_was_installed(cold: None, names: OnlineServer, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "PATH": f"{SAFELIGHT.parent}{os.pathsep}{os.environ['PATH']}"}
    bash = shutil.which("bash")
    assert bash is not None
    # the shell that asks is the one above the command: `; true` keeps it from making room for it
    _run([bash, "--norc", "-c", "safelight --install-completion; true"], names.data_dir, home)
    script = """
        source ~/.bashrc
        COMP_WORDS=(safelight online-deployment show -e flux-one -n "")
        COMP_CWORD=6
        $(complete -p safelight | sed 's/.*-F \\([^ ]*\\) .*/\\1/') safelight
        printf '%s\\n' "${COMPREPLY[@]}"
    """

    assert _run([bash, "--norc", "-c", script], names.data_dir, home).splitlines() == ["blue"]
