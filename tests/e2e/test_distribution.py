"""The wheel and the sdist, as `pip install` leaves them: apart from this checkout, from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.e2e.processes import environment

ROOT = Path(__file__).parents[2]
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `python -m build` fills: the sdist from the checkout, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


def run(*command: str, cwd: Path) -> str:
    kept = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_from_the_sdist_makes_a_picture_in_any_folder(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    site = Path(run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", str(wheel), cwd=tmp_path)
    # What it depends on is what is installed here; the checkout itself, which an editable install adds, is not seen.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    work = tmp_path / "elsewhere"
    work.mkdir()
    where = run(str(python), "-c", "import safelight; print(safelight.__file__)", cwd=work)
    assert where.startswith(str(site))
    safelight = str(tmp_path / "venv/bin/safelight")
    run(safelight, "generate", "a fox", "--steps", "1", "--output", "fox.png", cwd=work)
    assert (work / "fox.png").read_bytes().startswith(b"\x89PNG")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} <= {"safelight", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert "safelight/py.typed" in names
    assert "safelight/server/web/static/index.html" in names
    assert any(name.startswith("safelight/models/sprite/") and name.endswith(".safetensors") for name in names)
    assert wheel.stat().st_size < 60 * MEBIBYTE


def test_the_wheel_has_the_licences_of_what_its_page_is_made_of(wheel: Path) -> None:
    made_of = json.loads((ROOT / "web/package.json").read_text())["dependencies"]
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
        licences = "".join(archive.read(name).decode() for name in names)
    assert len(names) == 2
    for name in made_of:
        assert f"{name}: the mit license" in licences.lower()


def test_the_sdist_builds_without_the_checkout_and_leaves_the_tests_out(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "PKG-INFO"} <= names
    assert not [name for name in names if name.startswith(("tests", ".ci", "training", "web", "deploy"))]


def test_a_stranger_reads_on_the_index_what_it_is(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Description-Content-Type: text/markdown" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "Classifier: Topic :: Scientific/Engineering :: Image Processing" in metadata
