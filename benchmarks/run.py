"""Every measurement behind a figure in the docs, one after the other: `make bench`, or `make bench ONLY=same_seed`."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("step_batching", "same_seed", "waiting", "previews", "loras", "overload", "page_beside")
ONLY_WHEN_NAMED = ("precisions", "real_size")
"""They take gigabytes of the disk, and many minutes."""


def main() -> None:
    wanted = sys.argv[1:] or BENCHMARKS
    known = (*BENCHMARKS, *ONLY_WHEN_NAMED)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}")
    for name in wanted:
        print(f"\n== python -m benchmarks.{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
