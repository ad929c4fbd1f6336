"""What a test run sees of the machine that it runs on: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fetch import FETCHED
from tests.own_home import CERTIFICATES, FOLDERS

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "SAFELIGHT_PORT": "none",
    "SAFELIGHT_NO_SUCH": "setting",
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_TOKEN": "not for tests",
    "AWS_PROFILE": "work",
    "AZURE_CONFIG_DIR": "azure",
    "OPENAI_API_KEY": "not for tests",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}
FILES = (
    ".cache/huggingface/token",
    ".cache/safelight/sprite/flow.pt",
    ".config/pip/pip.conf",
    ".local/share/safelight/admin-token",
    ".aws/credentials",
    ".azure/config",
    ".netrc",
    ".npmrc",
)
NEEDS_NOT = ("-p", "no:cacheprovider", "-p", "no:schemathesis")
STARTS_EVERYTHING = (  # a download, a command, a server, the SDK of another, stages of the recipe
    "tests/unit/model/test_hub.py::test_a_full_cache_serves_without_a_network",
    "tests/e2e/test_cli.py::test_generate_writes_a_picture_and_prints_its_seed",
    "tests/compat/test_azure_ai_ml.py::test_the_workspace_is_there",
    *(
        ["tests/training/test_recipe_smoke.py::test_a_stopped_stage_goes_on_from_its_checkpoint"]
        if (FETCHED / "art").exists()
        else []
    ),
)


@pytest.fixture
def real(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has settings, keys and a full home."""
    home = tmp_path / "home"
    for name in FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("not for tests")
    folders = {name: str(home / ".cache") for name in FOLDERS} | {"HOME": str(home), "TMPDIR": str(tmp_path)}
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return ours | folders | SETTINGS | {"SPRITE_WORK": str(home / ".cache/safelight/sprite")}


def test_a_run_keeps_no_setting_and_no_folder_of_its_environment(real: dict[str, str]) -> None:
    code = "import json, os; from tests.own_home import move_in; print(move_in()); print(json.dumps(dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=real, capture_output=True, text=True, check=True)

    folder, environment = done.stdout.splitlines()
    kept = json.loads(environment)
    assert not kept.keys() & SETTINGS.keys()
    assert {name for name in kept if kept[name].startswith(f"{folder}/")} == {*FOLDERS, CERTIFICATES}
    assert not any(real["HOME"] in value for value in kept.values())


@pytest.mark.skipif(sys.platform != "linux", reason="who opens a file can be seen on Linux alone")
def test_nothing_of_a_real_home_is_read_or_written(real: dict[str, str]) -> None:
    from inotify_simple import INotify, flags  # noqa: PLC0415  for Linux alone

    home = Path(real["HOME"])
    with INotify() as watch:
        for folder in (home, *(each for each in home.rglob("*") if each.is_dir())):
            watch.add_watch(folder, flags.OPEN | flags.CREATE | flags.MODIFY | flags.DELETE)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *NEEDS_NOT, *STARTS_EVERYTHING],
            cwd=ROOT, env=real, capture_output=True, text=True, check=False,
        )  # fmt: skip
        touched = {event.name for event in watch.read(timeout=0)}

    assert done.returncode == 0, done.stdout
    assert not touched
