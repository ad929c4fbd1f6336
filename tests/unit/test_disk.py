"""What a disk refuses, in one line of the log a minute, and in one sentence."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from safelight.disk import LOG_INTERVAL_S, Disk
from safelight.errors import StorageUnavailable
from tests.full_disk import no_file_grows


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(clock: Clock, caplog: pytest.LogCaptureFixture) -> Disk:
    caplog.set_level(logging.INFO, logger="safelight")
    return Disk(clock=clock)


def write(disk: Disk, path: Path) -> None:
    with disk.writing("the place"), path.open("wb", buffering=0) as file:
        file.write(b"content")


def test_a_full_disk_is_named(disk: Disk) -> None:
    with pytest.raises(
        StorageUnavailable, match="the place takes no writes: its disk is full; whoever runs this server"
    ):
        write(disk, Path("/dev/full"))

    assert disk.trouble == "the place takes no writes: its disk is full"


def test_so_is_a_limit_on_files(disk: Disk, tmp_path: Path) -> None:
    with no_file_grows(), pytest.raises(StorageUnavailable, match="the limit on the size of its files is reached"):
        write(disk, tmp_path / "file")


@pytest.mark.parametrize(
    ("number", "cause"), [(errno.EDQUOT, "its disk quota is used up"), (errno.EROFS, "it may only be read")]
)
def test_and_so_is_what_a_test_cannot_bring_about(disk: Disk, number: int, cause: str) -> None:
    with pytest.raises(StorageUnavailable, match=cause), disk.writing("the place"):
        raise OSError(number, os.strerror(number))


def test_an_error_that_is_not_the_disks_stays_what_it_is(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(disk, tmp_path / "nowhere" / "file")

    assert disk.trouble is None


def test_the_first_refusal_is_in_the_log_and_what_follows_is_not(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1000):
        disk.refused("the place", "its disk is full", detail="No space left on device")

    assert caplog.messages == [
        "the place takes no writes: its disk is full (No space left on device); what needs it is answered with 503"
    ]


def test_a_disk_that_takes_this_and_refuses_that_gets_no_more_than_a_line_a_minute(
    disk: Disk, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        disk.refused("the place", "its disk is full", detail="")
        disk.took("the place")
    assert len(caplog.messages) == 2

    disk.refused("the place", "its disk is full", detail="")
    clock.now += LOG_INTERVAL_S
    disk.refused("the place", "its disk is full", detail="")
    assert len(caplog.messages) == 3
    assert disk.trouble is not None


def test_each_place_is_told_of(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    disk.refused("one", "its disk is full", detail="")
    disk.refused("other", "it may only be read", detail="")
    disk.took("one")

    assert disk.trouble == "other takes no writes: it may only be read"
    assert caplog.messages[-1] == "one takes writes again"
    assert len(caplog.messages) == 3
