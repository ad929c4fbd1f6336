"""Clients in JavaScript, as they come from npm, pointed here by their URL alone."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.compat.conftest import KEY
from tests.fetch import NODE_MODULES, WHY_NOT
from tests.live_server import LiveServer

SCRIPTS = Path(__file__).parent / "javascript"
NODE = shutil.which("node")
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts beside the packages that they import; without these a test fails."""
    if NODE is None or not NODE_MODULES.exists():
        why = WHY_NOT.read_text(encoding="utf-8") if WHY_NOT.exists() else "they have not been fetched"
        pytest.fail(f"no JavaScript clients: {why}\nRun `make fetch` where the npm registry can be reached.", False)
    folder = tmp_path_factory.mktemp("javascript")
    for script in SCRIPTS.iterdir():
        shutil.copy(script, folder)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    return folder


def run(folder: Path, script: str, **environment: str) -> list[dict[str, str]]:
    done = subprocess.run(
        [str(NODE), script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def size_of(content: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        return picture.size


@pytest.mark.parametrize("path", ["", "/predict", "/score"])
def test_hugging_faces_client_gets_pictures_and_reads_errors_at_each_url(
    server: LiveServer, folder: Path, path: str
) -> None:
    drawn, edited, refused, denied = run(folder, "huggingface.mjs", URL=server.url + path, KEY=KEY)

    assert drawn["type"] == edited["type"] == "image/png"
    assert size_of(drawn["base64"]) == size_of(edited["base64"]) == (64, 96)
    assert "the nearest is 64" in refused["error"]
    assert "Incorrect API key" in denied["error"]


def test_hugging_faces_client_in_a_browser_needs_the_url_that_answers_with_pictures(
    server: LiveServer, folder: Path
) -> None:
    drawn, *_ = run(folder, "huggingface.mjs", URL=f"{server.url}/predict", KEY=KEY, USER_AGENT=BROWSER)
    at_score, *_ = run(folder, "huggingface.mjs", URL=f"{server.url}/score", KEY=KEY, USER_AGENT=BROWSER)

    assert size_of(drawn["base64"]) == (64, 96)
    assert "expected a Blob" in at_score["error"]


def test_openais_client_and_the_ai_sdk_draw_edit_and_stream(server: LiveServer, folder: Path) -> None:
    model = "black-forest-labs/FLUX.1-schnell"

    lines = run(folder, "openai.mjs", URL=f"{server.url}/v1", KEY=KEY, MODEL=model)

    assert [(line["from"], size_of(line["base64"])) for line in lines if "partial" not in line["from"]] == [
        ("generate", (64, 96)),
        ("edit", (64, 96)),
        ("image_generation.completed", (64, 64)),
        ("ai-sdk", (96, 64)),
    ]


def test_the_ai_sdks_azure_provider_draws_at_both_of_its_paths(server: LiveServer, folder: Path) -> None:
    lines = run(folder, "azure.mjs", URL=server.url, KEY=KEY, MODEL="fake")

    assert [(line["from"], size_of(line["base64"])) for line in lines] == [
        ("/openai/v1", (64, 96)),
        ("/openai", (64, 96)),
    ]
