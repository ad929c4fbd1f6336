from __future__ import annotations

import pytest

from safelight.server.endpoints.download_progress import DownloadProgress

GB = 10**9


def test_a_log_stays_short_however_often_the_download_reports() -> None:
    """An hour of a download at 10 MB/s, reported at every megabyte."""
    now = 0.0
    lines: list[str] = []
    progress = DownloadProgress("acme/flux", lines.append, clock=lambda: now)

    for megabytes in range(36_001):
        now = megabytes / 10
        progress.report(megabytes * 10**6, 36 * GB)

    assert len(lines) == 101
    assert lines[0] == "Downloading acme/flux: 0.0 of 36.0 GB (0%)"
    assert lines[9] == "Downloading acme/flux: 3.2 of 36.0 GB (9%)"
    assert lines[-1] == "Downloading acme/flux: 36.0 of 36.0 GB (100%)"


def test_a_fast_download_says_where_it_begins_and_where_it_ends() -> None:
    lines: list[str] = []
    progress = DownloadProgress("acme/flux", lines.append, clock=lambda: 0.0)

    for bytes_here in (500_000, 600_000, 900_000, 1_000_000):
        progress.report(bytes_here, 1_000_000)

    assert lines == ["Downloading acme/flux: 0.5 of 1.0 MB (50%)", "Downloading acme/flux: 1.0 of 1.0 MB (100%)"]


@pytest.mark.parametrize(("total", "expected"), [(300, "150 of 300 bytes"), (3_000, "1.5 of 3.0 kB")])
def test_sizes_are_in_the_unit_of_the_whole(total: int, expected: str) -> None:
    lines: list[str] = []

    DownloadProgress("acme/flux", lines.append).report(total // 2, total)

    assert lines == [f"Downloading acme/flux: {expected} (50%)"]
