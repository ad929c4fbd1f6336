"""Every measurement behind a figure in the docs, one after the other: `make bench`, or `make bench ONLY=same_seed`."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("step_batching", "same_seed", "waiting", "previews", "loras", "overload")


def main() -> None:
    wanted = sys.argv[1:] or BENCHMARKS
    unknown = [name for name in wanted if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    for name in wanted:
        print(f"\n== python -m benchmarks.{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
