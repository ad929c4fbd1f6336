"""What is at a path after it was written to, and after it could not be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safelight.cli.pictures.output_files import write_whole
from safelight.errors import InvalidRequest


@pytest.mark.parametrize("content", [None, b"new"])
@pytest.mark.parametrize("name", ["x" * 250 + ".png", "file/new.png", "no folder/new.png", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()

    with pytest.raises(InvalidRequest, match=f"{name} cannot be written: "):
        write_whole(tmp_path / name, content)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")

    write_whole(tmp_path / "link", b"new")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    write_whole(pipe, None)
    write_whole(pipe, b"new")

    assert os.read(reader, 100) == b"new"
    assert pipe.is_fifo()
    os.close(reader)
