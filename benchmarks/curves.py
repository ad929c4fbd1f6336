"""How cost grows: seconds by size, steps and batch, throughput by clients, waiting by load, memory by size and batch.

    python -m benchmarks.curves [--rounds 3] [--pictures 16]

All of `sprite`, and by size of two FLUX-width blocks with random weights. In each round every point is measured once,
so that other work on the machine bends no curve; a point is the median of its rounds, and rows are ratios of points.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import torch
from diffusers import FluxTransformer2DModel

from benchmarks import stage_costs
from benchmarks.rows import Curve, Row, add_options, report
from benchmarks.servers import run_on, safelight
from safelight.cli.bench.load import Load
from safelight.cli.bench.mix import parse_mix
from safelight.engine.engine import Engine

SIZES = (128, 192, 256, 320, 384)
STEPS = (1, 2, 4, 8, 16)
BATCHES = (1, 2, 4, 8, 16)
CLIENTS = (1, 2, 4, 8, 16)
LOADS = (0.3, 0.5, 0.7, 0.9)
WIDE_SIZES = (128, 256, 384, 512)
TEXT_TOKENS = 256
MIB = 2**20
Points = dict[float, float]


def main() -> None:
    options = _parse_options()
    stage_costs.become_a_replica()
    engine = stage_costs.load_sprite()
    stage_costs.measure(engine, 8, 0)
    by_size = _median_of(options.rounds, SIZES, lambda size, seed: _picture_s(engine, seed, size=int(size)))
    by_steps = _median_of(options.rounds, STEPS, lambda steps, seed: _picture_s(engine, seed, steps=int(steps)))
    by_batch = _median_of(
        options.rounds, BATCHES, lambda rows, seed: stage_costs.measure(engine, int(rows), seed).wall.step
    )
    wide = _wide_blocks()
    by_wide_size = _median_of(options.rounds, WIDE_SIZES, lambda size, _: _wide_step_s(wide, int(size)))
    by_clients, by_load = _of_server(options)
    curves = [
        _curve("A picture of sprite by its size", "pixels of a side", "seconds", {"4 steps": by_size}),
        _curve("A picture of sprite by its steps", "steps", "seconds", {"256x256": by_steps}),
        _curve("A step of sprite by rows in the batch", "rows", "seconds a row", {"256x256": by_batch}),
        _curve("Throughput by clients", "clients", "pictures a second", {"sprite, 256x256, 4 steps": by_clients}),
        _curve("Waiting by load", "share of the capacity", "seconds until the picture", by_load),
        _curve("Two FLUX-width blocks by size", "pixels of a side", "seconds a step", {"fp32": by_wide_size}),
    ]
    rows = _rows(by_size, by_steps, by_batch, by_clients, by_wide_size)
    report("curves", rows, store=options.store, curves=curves, is_last=False)
    memory: dict[str, Points] = {
        f"batch of {batch}": {size: _memory_mib(size, batch) for size in SIZES} for batch in (1, 8)
    }
    curves.append(_curve("Memory by size and batch", "pixels of a side", "MiB above the loaded model, at most", memory))
    report("curves", rows, store=options.store, curves=curves)


def _rows(by_size: Points, by_steps: Points, by_batch: Points, by_clients: Points, by_wide_size: Points) -> list[Row]:
    ratios = (
        ("a picture of 384x384", "256x256, 2.25 times the pixels", by_size[384] / by_size[256]),
        ("a picture of 8 steps", "4 steps", by_steps[8] / by_steps[4]),
        ("a row of a step at 8 rows", "at one row", by_batch[8] / by_batch[1]),
        ("a row of a step at 16 rows", "at one row", by_batch[16] / by_batch[1]),
        ("pictures a second, 16 clients", "one client", by_clients[16] / by_clients[1]),
        ("a step of FLUX-width blocks, 512x512", "256x256, 4 times the pixels", by_wide_size[512] / by_wide_size[256]),
    )
    return [Row(what=what, against=against, value=value, rounds=1) for what, against, value in ratios]


def _median_of(rounds: int, points: Iterable[float], measure: Callable[[float, int], float]) -> Points:
    """`measure` is given a point and a number that it has not had before."""
    found: dict[float, list[float]] = {point: [] for point in points}
    for index in range(rounds + 1):
        for number, (point, values) in enumerate(found.items()):
            values.append(measure(point, 10_000 * (index + 1) + 100 * number))
    return {point: statistics.median(values[1:]) for point, values in found.items()}  # the first warms up


def _picture_s(engine: Engine, seed: int, *, size: int = 256, steps: int = 4) -> float:
    began_at = time.perf_counter()
    generation = stage_costs.start(engine, seed, steps, size)
    while not generation.is_denoised:
        engine.step([generation])
    engine.decode(generation)
    engine.release(generation)
    return time.perf_counter() - began_at


def _wide_blocks() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=False).eval()


@torch.inference_mode()
def _wide_step_s(model: FluxTransformer2DModel, size: int) -> float:
    tokens = (size // 16) ** 2
    began_at = time.perf_counter()
    model(
        hidden_states=torch.randn(1, tokens, 64),
        encoder_hidden_states=torch.randn(1, TEXT_TOKENS, 4096),
        pooled_projections=torch.randn(1, 768),
        timestep=torch.tensor([0.5]),
        img_ids=torch.zeros(tokens, 3),
        txt_ids=torch.zeros(TEXT_TOKENS, 3),
    )
    return time.perf_counter() - began_at


def _of_server(options: argparse.Namespace) -> tuple[Points, dict[str, Points]]:
    shapes = parse_mix("256x256@4")
    with safelight("sprite", "--max-queued-requests", "500") as (target, _):

        def throughput(clients: float, seed: int) -> float:
            load = Load(clients=int(clients), requests=max(options.pictures, 3 * int(clients)), warm_up_s=0)
            run = run_on(target, load, shapes, seed)
            return len(run.counted) / run.seconds

        by_clients = _median_of(options.rounds, CLIENTS, throughput)
        capacity = max(by_clients.values())
        waits: dict[str, Points] = {"p50": {}, "p95": {}}
        for load in LOADS:
            run = run_on(target, Load(rate=load * capacity, requests=3 * options.pictures, warm_up_s=0), shapes, 1)
            latencies = sorted(each.latency_s for each in run.counted)
            waits["p50"][load] = statistics.median(latencies)
            waits["p95"][load] = latencies[int(0.95 * len(latencies))]
    return by_clients, waits


def _memory_mib(size: float, rows: int) -> float:
    """In a process of its own, as what torch has once taken it does not give back."""
    command = [sys.executable, "-m", "benchmarks.curves", "--memory", str(int(size)), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _measure_memory(size: int, rows: int) -> None:
    engine = stage_costs.load_sprite()
    loaded = psutil.Process().memory_info().rss
    batch = [stage_costs.start(engine, index, 1, size) for index in range(rows)]
    engine.step(batch)
    for each in batch:
        engine.decode(each)
    print(json.dumps((_peak_bytes() - loaded) / MIB))


def _peak_bytes() -> int:
    """Of this process; `ru_maxrss` would be the peak of the one that has started it, if that was greater."""
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def _curve(title: str, x: str, y: str, lines: dict[str, Points]) -> Curve:
    return Curve(title=title, x=x, y=y, lines={name: tuple(points.items()) for name, points in lines.items()})


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=16, help="of each run against the server")
    parser.add_argument("--memory", type=int, nargs=2, help=argparse.SUPPRESS)
    add_options(parser)
    options = parser.parse_args()
    if options.memory is not None:
        _measure_memory(*options.memory)
        sys.exit(0)
    return options


if __name__ == "__main__":
    main()
