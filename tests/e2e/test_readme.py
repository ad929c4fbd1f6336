"""The README's commands do what it says they do: each block is run as it stands, but for the port."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pictures import open_picture
from tests.e2e.processes import SAFELIGHT, Server, environment, running_server

COLD = True
"""As a reader starts it: see `tests.warm`."""

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def blocks(language: str, containing: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language and containing in text]


def run(command: list[str] | str, folder: Path) -> None:
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment({"HF_HUB_OFFLINE": "0"}),  # huggingface_hub refuses loopback too when it is offline
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def pictures(folder: Path) -> list[tuple[int, int]]:
    return [open_picture(path).size for path in sorted(folder.glob("*.png"))]


def test_the_readme_has_the_blocks_that_are_tested_here() -> None:
    assert len(blocks("sh", "curl")) == 2
    assert len(blocks("sh", "safelight generate")) == 1
    assert len(blocks("python", "import")) == 2


@pytest.mark.parametrize("block", blocks("sh", "curl"))
def test_a_curl_command_of_the_readme_writes_a_picture(server: Server, tmp_path: Path, block: str) -> None:
    run(block.replace("http://127.0.0.1:8000", server.url), tmp_path)

    assert pictures(tmp_path) == [(256, 256)]


@pytest.mark.parametrize("block", blocks("python", "import"))
def test_a_client_of_the_readme_writes_its_pictures(server: Server, tmp_path: Path, block: str) -> None:
    run([sys.executable, "-W", "ignore", "-c", block.replace("http://127.0.0.1:8000", server.url)], tmp_path)

    assert pictures(tmp_path) in ([(256, 256)], [(256, 256), (256, 256)])


@pytest.mark.parametrize("block", blocks("sh", "safelight generate"))
def test_the_command_without_a_server_writes_its_picture(tmp_path: Path, block: str) -> None:
    run(block.replace(".venv/bin/safelight", str(SAFELIGHT)), tmp_path)

    assert pictures(tmp_path) == [(256, 256)]
