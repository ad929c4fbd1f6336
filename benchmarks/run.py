"""Every measurement behind a figure in the docs, one after the other: `make bench`, or `make bench ONLY=same_seed`.

What ends in rows (`benchmarks.rows`) is stored, and at the end one table shows all that are stored, which
`docs/performance.md` has too, with the plots.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.pages import write_performance_page
from benchmarks.rows import WITH_ROWS, print_rows, read_reports

BENCHMARKS = ("step_batching", "same_seed", "waiting", "previews", "loras", "overload")
"""Beside those that have rows."""
ONLY_WHEN_NAMED = ("precisions", "real_size", "second_start")
"""They take gigabytes of the disk, and many minutes."""


def main() -> None:
    known = dict.fromkeys((*WITH_ROWS, *BENCHMARKS, *ONLY_WHEN_NAMED))
    wanted = sys.argv[1:] or [name for name in known if name not in ONLY_WHEN_NAMED]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}")
    failed = [name for name in wanted if not _run(name)]
    reports = read_reports()
    print_rows(reports)
    write_performance_page(reports)
    if failed:
        sys.exit(f"did not end well: {', '.join(failed)}")


def _run(name: str) -> bool:
    print(f"\n== python -m benchmarks.{name}", flush=True)
    options = ["--store"] if name in WITH_ROWS else []
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode == 0


if __name__ == "__main__":
    main()
