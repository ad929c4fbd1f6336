"""A start that quantizes, and one that maps what was quantized once: FLUX.1-schnell at its true width, fewer layers.

    python -m benchmarks.second_start [--to int8] [--rounds 3] [--layers 2] [--folder FOLDER]

Writes a model of random weights in bf16 (4.4 GB with `--layers 2`: so many double blocks, twice as many single ones,
and T5's share), quantizes it with `safelight model quantize`, and starts both in turns, as `safelight generate` does:
ready, and one picture of 256x256 in one step, which is the same from both. `cold` is a start whose files are not in the
system's cache. All is removed at the end. T5 is mapped from five layers on (`--layers 4`), as it is in the real model:
what has less than 1 GiB is copied.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import load_average, this_machine
from benchmarks.random_flux import plan_flux, write_flux
from benchmarks.replica_run import Run, generate
from safelight.cli.models.model_quantize import Kind
from safelight.picture.files import decode
from safelight.settings import load_settings

SIZE = 256
OF_ALL = {"transformer": 19, "text_encoder_2": 24}
"""Double blocks, which have two single ones each, and layers of T5."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", choices=get_args(Kind), default="int8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2, help="double blocks of the transformer, of 19")
    parser.add_argument("--folder", type=Path, help="where room is; by default the system's for temporary files")
    options = parser.parse_args()
    print(f"{this_machine()}, load {load_average()}")
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        stored = _write(Path(scratch) / "bf16", options.layers)
        quantized = _quantize(stored, Path(scratch) / options.to, options.to)
        ways = {f"{options.to} of bf16": stored, f"{options.to} mapped": quantized, "mapped, cold": quantized}
        runs: dict[str, list[Run]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, folder in ways.items():
                if name.endswith("cold"):
                    _forget(folder)
                runs[name].append(_start(folder, options.to))
        _print(runs)
    print(f"load {load_average()}")


def _write(folder: Path, layers: int) -> Path:
    t5 = round(OF_ALL["text_encoder_2"] * layers / OF_ALL["transformer"])
    fewer = {
        "transformer": {"num_layers": layers, "num_single_layers": 2 * layers},
        "text_encoder_2": {"num_layers": max(1, t5)},
    }
    files = plan_flux("none", fewer)
    write_flux(folder, files, fewer)
    print(f"bf16: {sum(each.num_bytes for each in files.values()) / 1e9:.1f} GB", flush=True)
    return folder


def _quantize(folder: Path, out: Path, kind: str) -> Path:
    command = [sys.executable, "-c", "from safelight.cli.main import main; main()", "model", "quantize", str(folder)]
    began_at = time.perf_counter()
    process = subprocess.Popen([*command, "--to", kind, "--out", str(out)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"safelight model quantize ended with {os.waitstatus_to_exitcode(status)}")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    seconds = f"{time.perf_counter() - began_at:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of CPU"
    print(f"{kind}: {size / 1e9:.1f} GB, written once in {seconds}", flush=True)
    return out


def _forget(folder: Path) -> None:
    """Takes the files out of the system's cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _start(folder: Path, kind: str) -> Run:
    """What is quantized already stays as it is."""
    settings = load_settings(
        model=str(folder), device="cpu", dtype="float32", quantization=kind, text_encoder_2_quantization=kind
    )
    return asyncio.run(generate(folder, settings, size=SIZE, steps=1))


def _print(runs: dict[str, list[Run]]) -> None:
    pictures = [decode(run.picture).pixels for each in runs.values() for run in each]
    same = all(np.array_equal(each, pictures[0]) for each in pictures)
    table = Table("start", "ready, CPU s", "ready, wall s", "first picture, CPU s", "wall s", "private GiB", "at most")
    for name, each in runs.items():
        table.add_row(name, *_row(each))
    Console(width=110).print(table)
    print(f"medians of {len(next(iter(runs.values())))} in turns; {'one' if same else 'NOT THE SAME'} picture from all")


def _row(runs: Sequence[Run]) -> list[str]:
    figures = []
    for run in runs:
        (_, began_at, ready_at), (*_, ended_at) = run.stages[0], run.stages[-1]
        watch = run.watch
        at_ready = min(watch.samples, key=lambda each: abs(each.at - ready_at))
        figures.append(
            (
                watch.cpu_between(began_at, ready_at),
                ready_at - began_at,
                watch.cpu_between(ready_at, ended_at),
                ended_at - ready_at,
                at_ready.private_bytes / 2**30,
                watch.peak_private_bytes() / 2**30,
            )
        )
    return [f"{statistics.median(each):.1f}" for each in zip(*figures, strict=True)]


if __name__ == "__main__":
    main()
