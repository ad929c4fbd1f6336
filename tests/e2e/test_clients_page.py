"""The programs of the page about clients draw what it says: each is run as it stands, but for the port."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pictures import open_picture
from tests.e2e.processes import Server, environment, running_server
from tests.fetch import NODE_MODULES

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python|js)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def command(language: str, block: str, folder: Path) -> list[str]:
    if language == "js":
        assert NODE_MODULES.exists(), "run `make fetch` where the npm registry can be reached"
        (folder / "node_modules").symlink_to(NODE_MODULES)
        (folder / "program.mjs").write_text(block)
        return [shutil.which("node") or "node", "program.mjs"]
    return {"sh": ["bash", "-e", "-c"], "python": [sys.executable, "-W", "ignore", "-c"]}[language] + [block]


def test_the_page_has_programs_in_three_languages() -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "python", "python", "python", "js", "js", "js"]


@pytest.mark.parametrize(("language", "block"), BLOCKS)
def test_a_program_of_the_page_writes_its_picture(server: Server, tmp_path: Path, language: str, block: str) -> None:
    done = subprocess.run(
        command(language, block.replace("http://127.0.0.1:8000", server.url), tmp_path),
        cwd=tmp_path,
        env=environment({"HF_HUB_OFFLINE": "0"}),  # huggingface_hub refuses loopback too when it is offline
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert [open_picture(path).size for path in tmp_path.glob("*.png")] == [(256, 256)]
