"""The commands of docs/streaming-and-edits.md, one after another as they stand, but for the port."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.pictures import open_picture
from tests.e2e.processes import environment, running_server

PAGE = Path(__file__).parents[2] / "docs" / "streaming-and-edits.md"
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```(?:\n```\n(.*?)```)?", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(language: str, block: str, folder: Path) -> str:
    command = ["bash", "-eo", "pipefail", "-c", block] if language == "sh" else [sys.executable, "-c", block]
    done = subprocess.run(
        command, cwd=folder, env=environment({}), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shape(output: str) -> list[str]:
    """Its lines in order of the alphabet: which of two pictures is first may vary, and what they look like."""
    return sorted(re.sub(r'(": )"iVBOR.*', r'\1"iVBOR', line) for line in output.strip().splitlines())


def test_the_pages_commands_write_what_the_page_says(tmp_path: Path) -> None:
    with running_server() as server:
        for language, block, expected in BLOCKS:
            output = run(language, block.replace("http://127.0.0.1:8000", server.url), tmp_path)

            assert shape(output) == shape(expected), block

    names = ["apple-0", "apple-1", "cup-0", "cup-1", "green", "green-too", "linked", "mask"]
    pictures = {path.stem: open_picture(path) for path in tmp_path.glob("*.png")}
    assert sorted(pictures) == names
    assert {picture.size for picture in pictures.values()} == {(256, 256)}
    assert pictures["green"].tobytes() == pictures["green-too"].tobytes()
    assert len(BLOCKS) == 8
