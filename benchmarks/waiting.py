"""What OpenMP's waiting costs: steps of sprite by how its threads wait, alone on the machine and on contended cores.

    python -m benchmarks.waiting [--rounds 3]

One busy process per core stands for the event loop, other replicas and whatever else runs. The ways take turns, each in
a process of its own, since the runtime reads its variables when it is loaded. Ratios are what to read.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from benchmarks import stage_costs
from safelight.serving.backends.child_environment import child_environment

STEPS = 4
CORES = os.cpu_count() or 1
SLEEPS = child_environment(dict(os.environ), num_threads=CORES)
WAYS: Mapping[str, tuple[int, Mapping[str, str]]] = {
    "all threads, which sleep": (CORES, SLEEPS),
    "all, which spin 10,000 times": (CORES, SLEEPS | {"GOMP_SPINCOUNT": "10000"}),
    "all, which spin as OpenMP does": (
        CORES,
        {name: value for name, value in SLEEPS.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")},
    ),
    "half of them, which sleep": (max(1, CORES // 2), SLEEPS),
}
"""How many, and what the process's environment says."""
COLUMNS = ("step of one row", "a row of a step of eight", "decode", "CPU of a picture in batches of eight")
Figures = tuple[float, ...]
"""Milliseconds, as the columns are."""


def main() -> None:
    options = _parse_options()
    if options.measure is not None:
        print(json.dumps(_measure(options.measure)))
        return
    alone: dict[str, list[Figures]] = {way: [] for way in WAYS}
    contended: dict[str, list[Figures]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            alone[way].append(_run(way))
        with _busy_cores():
            for way in WAYS:
                contended[way].append(_run(way))
    for title, found in (("alone on the machine", alone), (f"beside {CORES} busy processes", contended)):
        table = Table("ms", *COLUMNS, title=title, title_justify="left")
        for way, rounds in found.items():
            table.add_row(way, *(f"{statistics.median(each):.0f}" for each in zip(*rounds, strict=True)))
        Console(width=130).print(table)


def _run(way: str) -> Figures:
    num_threads, environment = WAYS[way]
    command = [sys.executable, "-m", "benchmarks.waiting", "--measure", str(num_threads)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return tuple(json.loads(done.stdout))


def _measure(num_threads: int) -> Figures:
    engine = stage_costs.load_sprite(num_threads)
    engine._threads.num_half = num_threads  # noqa: SLF001  as asked, and not as it would learn
    one, eight = (
        [stage_costs.measure(engine, rows, 1_000 * index + rows) for index in range(times)][1:]
        for rows, times in ((1, 6), (8, 3))
    )
    return (
        1000 * statistics.median(each.wall.step for each in one),
        1000 * statistics.median(each.wall.step for each in eight),
        1000 * statistics.median(each.wall.decode for each in one),
        1000 * statistics.median(each.cpu.picture(STEPS) for each in eight),
    )


@contextmanager
def _busy_cores() -> Iterator[None]:
    busy = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(CORES)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def _spin() -> None:
    while True:
        pass


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
