"""How far a download is, in few lines: at most one for each percent, and one in ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.filesize import decimal, pick_unit_and_suffix

SECONDS_BETWEEN_LINES = 10.0


class DownloadProgress:
    """Writes the lines of one download; the first says where it begins, the last that it is complete."""

    def __init__(self, name: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._write = write
        self._clock = clock
        self._percent = -1
        self._written_at = -SECONDS_BETWEEN_LINES

    def report(self, num_here: int, total: int) -> None:
        """So many bytes of `total` are here."""
        percent = 100 * num_here // total
        is_due = self._clock() - self._written_at >= SECONDS_BETWEEN_LINES
        if percent <= self._percent or not (is_due or num_here >= total):
            return
        self._percent, self._written_at = percent, self._clock()
        self._write(f"Downloading {self._name}: {_part_of(num_here, total)} ({percent}%)")


def _part_of(num_here: int, total: int) -> str:
    """In the unit of the whole: 3.2 of 33.7 GB."""
    unit, _ = pick_unit_and_suffix(total, ["bytes", "kB", "MB", "GB", "TB"], 1000)
    return f"{num_here / unit:.{0 if unit == 1 else 1}f} of {decimal(total)}"
