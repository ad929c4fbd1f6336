"""Manifests that somebody has edited."""

from __future__ import annotations

from pathlib import Path

import pytest

from safelight.cli.pictures.manifest import FILE_NAME, Manifest
from safelight.errors import InvalidRequest


@pytest.mark.parametrize(
    "line",
    [
        '{"line": "1"}',
        '{"line": 1, "files": [5]}',
        '{"line": 1, "files": "000001.png"}',
        '{"line": 1, "files": ["../000001.png"]}',
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


def test_an_entry_whose_files_were_not_written_any_more_is_in_nobodys_way(tmp_path: Path) -> None:
    fox = {"prompt": "a fox"}
    (tmp_path / FILE_NAME).write_text(
        '{"line": 1, "files": ["000001-0.png", "000001-1.png"], "request": {"prompt": "a fox"}}\n'
    )
    (tmp_path / "000001-0.png").touch()

    with Manifest(tmp_path) as manifest:
        assert not manifest.is_made(1, fox)
        manifest.check_room(1, fox)
        with pytest.raises(InvalidRequest, match="line 1 has changed"):
            manifest.check_room(1, None)


def test_pictures_of_an_earlier_request_do_not_stay_beside_the_new_ones(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.add({"line": 1, "files": ["000001-0.png", "000001-1.png"]}, {"000001-0.png": b"", "000001-1.png": b""})
        manifest.add({"line": 1, "files": ["000001.webp"]}, {"000001.webp": b""})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.webp", FILE_NAME]
