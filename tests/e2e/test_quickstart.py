"""The quickstart leads to a picture in each of its three ways: its blocks run as they are, but for port and prompt."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkpoint_files import write_checkpoint
from tests.e2e.pictures import open_picture
from tests.e2e.processes import FOREIGN, SAFELIGHT
from tests.fake_hub import GOOD_TOKEN, fake_hub
from tests.online_server import online_server

PAGE = Path(__file__).parents[2] / "docs" / "quickstart-flux.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILES = re.findall(r"`(\S+\.yml)`:\n```yaml\n(.*?)```", TEXT, re.DOTALL)
GATED_MODEL = "azureml://registries/HuggingFace/models/black-forest-labs-flux.1-schnell/labels/latest"
SMALL_MODEL = re.findall(r"put `(\S+)` in place of the model", TEXT)[0]


@dataclass
class Reader:
    """Someone who follows the page in a folder of their own."""

    folder: Path
    home: Path
    url: str
    model: str = GATED_MODEL
    """What is written where the page has the gated model."""

    def follow(self, section: str) -> list[tuple[int, int]]:
        """Run a section's blocks, but for the one that undoes them; the sizes of the pictures that they left."""
        part = TEXT.partition(f"## {section}\n")[2].partition("\n## ")[0]
        for language, block in re.findall(r"```(sh|python)\n(.*?)```", part, re.DOTALL):
            if "endpoint delete" not in block:
                self.run(language, block)
        return [open_picture(path).size for path in self.folder.glob("*.png")]

    def run(self, language: str, block: str) -> None:
        block = block.replace("https://127.0.0.1:8000", self.url).replace(GATED_MODEL, self.model)
        if self.model == SMALL_MODEL:  # it "needs neither token nor connection"
            block = re.sub(r"^safelight connection .*$", ":", block, flags=re.MULTILINE)
        block = block.replace("--secret HF_TOKEN", "--secret-file HF_TOKEN=token")  # a test has no terminal
        shell = ["bash", "-e", "-c"] if language == "sh" else [sys.executable, "-W", "ignore", "-c"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        path = f"{SAFELIGHT.parent}:{kept['PATH']}"
        done = subprocess.run(
            [*shell, block],
            cwd=self.folder,
            env=kept | {"HOME": str(self.home), "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Beside a new server, with a hub that holds what makes a model known."""
    model, folder = write_checkpoint(tmp_path / "model"), tmp_path / "work"
    folder.mkdir()
    (folder / "token").write_text(GOOD_TOKEN)
    (folder / "request.json").write_text('{"inputs": "Astronaut", "parameters": {"width": 256, "height": 256}}')
    for name, text in FILES:
        (folder / name).write_text(text)
    home = tmp_path / "home"
    with (
        fake_hub(model, repo_id="black-forest-labs/FLUX.1-schnell") as hub,
        online_server(home / ".local" / "share" / "safelight", {"HF_ENDPOINT": hub.endpoint}) as server,
    ):
        yield Reader(folder, home, server.url)


def test_commands_lead_to_a_picture_from_the_command_line_and_from_curl(reader: Reader) -> None:
    assert reader.follow("With commands") == [(256, 256), (256, 256)]


def test_yaml_files_lead_to_a_picture(reader: Reader) -> None:
    assert reader.follow("With YAML") == [(256, 256)]


def test_the_sdk_leads_to_a_picture(reader: Reader) -> None:
    reader.run("sh", "safelight connection create -f connection.yml --secret HF_TOKEN")

    assert reader.follow("With the SDK") == [(256, 256)]


@pytest.mark.parametrize(
    ("section", "sizes"),
    [("With commands", [(256, 256), (256, 256)]), ("With YAML", [(256, 256)]), ("With the SDK", [(256, 256)])],
)
def test_the_small_model_in_place_of_the_gated_one_needs_no_token_and_no_connection(
    reader: Reader, section: str, sizes: list[tuple[int, int]]
) -> None:
    reader.model = SMALL_MODEL
    deployment = reader.folder / "deployment.yml"
    deployment.write_text(deployment.read_text().replace(GATED_MODEL, SMALL_MODEL))
    (reader.folder / "token").unlink()

    assert reader.follow(section) == sizes
