"""What OpenMP's waiting costs on contended cores: steps of the model with the default policy and with the passive one.

    python -m benchmarks.waiting [--rounds 5] [--seconds 4]

One busy process per core stands for the event loop, other replicas and whatever else runs. The two policies take turns,
each in a process of its own, since the runtime reads its variables when it is loaded. The ratio is what to read.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.step_batching import default_model, start
from safelight.engine.engine import load_engine
from safelight.serving.backends.child_environment import child_environment
from safelight.settings import EngineOptions

PASSIVE = child_environment(dict(os.environ), num_threads=os.cpu_count() or 1)
DEFAULT = {name: value for name, value in PASSIVE.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}


def main() -> None:
    options = _parse_options()
    if options.measure:
        print(_milliseconds_a_step(options.measure, options.seconds))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = default_model(Path(scratch))
        busy = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(os.cpu_count() or 1)]
        for process in busy:
            process.start()
        try:
            rounds = [_compare(folder, options.seconds) for _ in range(options.rounds)]
        finally:
            for process in busy:
                process.kill()
    for default, passive in rounds:
        print(f"default {default:.0f} ms a step, passive {passive:.0f}: ratio {default / passive:.1f}")
    print(f"median ratio {statistics.median(default / passive for default, passive in rounds):.1f}")


def _compare(folder: Path, seconds: float) -> tuple[float, float]:
    return _run(folder, seconds, DEFAULT), _run(folder, seconds, PASSIVE)


def _run(folder: Path, seconds: float, environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "benchmarks.waiting", "--measure", str(folder), "--seconds", str(seconds)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _milliseconds_a_step(folder: Path, seconds: float) -> float:
    """The median over as many steps as fit into `seconds`, and three at least."""
    engine = load_engine(folder, EngineOptions(num_threads=os.cpu_count()))
    generation = start(engine, 0, 50)
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while not generation.is_denoised and (time.perf_counter() < deadline or len(times) < 3):
        began_at = time.perf_counter()
        engine.step([generation])
        times.append(time.perf_counter() - began_at)
    return 1000 * statistics.median(times)


def _spin() -> None:
    while True:
        pass


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
