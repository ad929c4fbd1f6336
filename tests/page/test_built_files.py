"""What lies in the package is what its sources make: built again, to the byte."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from safelight.server.web.page import STATIC
from tests.page.conftest import WEB, lacking


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_built_page_matches_its_sources(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        lacking("the package nodejs is missing")
    if not (WEB / "node_modules" / "vite").exists():
        lacking("the page's tools have not been fetched (make fetch)")
    sources = tmp_path / "web"
    shutil.copytree(WEB, sources, ignore=shutil.ignore_patterns("node_modules"))
    (sources / "node_modules").symlink_to(WEB / "node_modules")

    done = subprocess.run(
        ["node", "node_modules/vite/bin/vite.js", "build", "--outDir", tmp_path / "built"],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    if contents(tmp_path / "built") != contents(STATIC):
        pytest.fail("the page's built files do not match web/; run `make web` and commit them", pytrace=False)


def test_the_pages_types_hold() -> None:
    if shutil.which("node") is None or not (WEB / "node_modules" / "typescript").exists():
        lacking("nodejs or the page's tools (make fetch) are missing")

    done = subprocess.run(
        ["node", "node_modules/typescript/bin/tsc", "--noEmit"], cwd=WEB, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (WEB / "package-lock.json").read_text(encoding="utf-8")
