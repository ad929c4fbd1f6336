"""Manifests that somebody has edited."""

from __future__ import annotations

from pathlib import Path

import pytest

from safelight.cli.manifest import FILE_NAME, Manifest
from safelight.errors import InvalidRequest


@pytest.mark.parametrize(
    "line",
    [
        '{"line": "1"}',
        '{"line": 1, "files": [5]}',
        '{"line": 1, "files": "000001.png"}',
        '{"line": 1, "files": ["' + "x" * 300 + '"]}',
        '{"line": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_what_no_run_has_written_is_refused_and_left_alone(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE_NAME).write_text(f"{line}\n")

    with pytest.raises(InvalidRequest, match="is not a manifest of ours"), Manifest(tmp_path):
        pass

    assert (tmp_path / FILE_NAME).read_text() == f"{line}\n"


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    entry = '{"line": 1, "files": ["000001.png"], "request": {"prompt": "a fox"}}'
    (tmp_path / FILE_NAME).write_text(f"\n{entry}\r\n  \n")
    (tmp_path / "000001.png").touch()

    with Manifest(tmp_path) as manifest:
        assert manifest.is_made(1, {"prompt": "a fox"})

    assert (tmp_path / FILE_NAME).read_text() == f"{entry}\n"


def test_a_file_elsewhere_makes_no_line_made(tmp_path: Path) -> None:
    entry = '{"line": 1, "files": ["000001.png"], "request": {"prompt": "a fox"}}'
    (tmp_path / FILE_NAME).write_text(f"{entry}\n")

    with Manifest(tmp_path) as manifest:
        assert not manifest.is_made(1, {"prompt": "a fox"})
        (tmp_path / "000001.png").touch()
        assert manifest.is_made(1, {"prompt": "a fox"})
