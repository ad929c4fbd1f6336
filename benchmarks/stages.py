"""Where the time of a picture goes, stage by stage, alone and in a loaded replica, and how near that is to the ideal.

    python -m benchmarks.stages [--clients 16] [--pictures 96] [--rounds 3]

The first table is of the engine by itself: seconds of the wall clock and of CPU, medians. The second is of a replica in
its own process that so many ask at once, by its own counters (`/metrics` has the same). The ideal is what the engine's
stages would take if no core ever waited: all of its CPU time, at the best batch, on all of the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks.step_batching import SPRITE, start
from safelight.engine.engine import Engine, load_engine
from safelight.model.checkpoint import read_model_spec
from safelight.picture.files import encode
from safelight.picture.parameters import build_generation_request
from safelight.serving.backends.child_environment import share_of_cores
from safelight.serving.backends.registry import find_factory
from safelight.serving.counters import Counters
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.start import create_dispatcher
from safelight.settings import EngineOptions, load_settings

BATCHES = (1, 2, 4, 8, 16)
STEPS = 4

Cost = tuple[float, float]
"""Seconds of the wall clock, and of CPU."""


def main() -> None:
    options = _parse_options()
    num_cores = share_of_cores(1)
    costs = measure_engine(load_engine(SPRITE, EngineOptions(num_threads=num_cores)), options.rounds)
    _print_costs(costs)
    best = min(BATCHES, key=lambda rows: costs[f"step of {rows}"][1] / rows)
    step = costs[f"step of {best}"][1] / best
    rest = costs["decode"][1] + costs["PNG"][1]
    ideal = num_cores / (STEPS * step + rest)
    one_by_one = costs["step of 8"][0] / 8 * STEPS + costs["decode"][0]
    print(
        f"ideal: {ideal:.2f} pictures/s on {num_cores} cores, best at batches of {best}; "
        f"stages one after the other: {1 / one_by_one:.2f}"
    )
    for rate, counters in asyncio.run(_measure_replica(options.clients, options.pictures, options.rounds)):
        _print_loaded(rate, ideal, counters, options.clients)


def measure_engine(engine: Engine, rounds: int) -> dict[str, Cost]:
    """Each stage, once a round."""
    batches = {rows: [start(engine, seed, 50) for seed in range(rows)] for rows in BATCHES}
    done = start(engine, 1, 1)
    engine.step([done])
    pixels, numbers = engine.decode(done), itertools.count()
    stages: dict[str, Callable[[], object]] = {
        "encode": lambda: engine._prompt_encoder._encode(f"a red cat {next(numbers)}"),  # noqa: SLF001 - no cache
        **{f"step of {rows}": lambda batch=batch: engine.step(batch) for rows, batch in batches.items()},
        "decode": lambda: engine.decode(done),
        "PNG": lambda: encode(pixels, image_format="png"),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in stages}
    for _ in range(rounds):
        for name, run in stages.items():
            costs[name].append(_cost(run))
    return {name: (_median(each, 0), _median(each, 1)) for name, each in costs.items()}


async def _measure_replica(clients: int, pictures: int, rounds: int) -> list[tuple[float, Counters]]:
    """Pictures a second, and what the replica counted meanwhile."""
    settings = load_settings(max_queued_requests=clients)
    dispatcher = create_dispatcher(find_factory(settings), settings, SPRITE, read_model_spec(SPRITE))
    await dispatcher.start()
    try:
        await dispatcher.wait_until_ready()
        await _ask(dispatcher, clients, clients)
        found = []
        for _ in range(rounds):
            before, began_at = dispatcher.snapshot().counters, time.perf_counter()
            await _ask(dispatcher, clients, pictures)
            found.append((pictures / (time.perf_counter() - began_at), _since(before, dispatcher.snapshot().counters)))
        return found
    finally:
        await dispatcher.stop()


async def _ask(dispatcher: Dispatcher, clients: int, pictures: int) -> None:
    seeds = iter(range(pictures))

    async def client() -> None:
        for seed in seeds:
            request = build_generation_request(dispatcher.spec, id=str(seed), prompt="a red cat", seed=seed)
            await dispatcher.generate(request)

    await asyncio.gather(*(client() for _ in range(clients)))


def _since(before: Counters, now: Counters) -> Counters:
    return Counters(
        transformer_calls=now.transformer_calls - before.transformer_calls,
        steps_run=now.steps_run - before.steps_run,
        stages={
            name: type(each)(each.count - before.stages[name].count, each.seconds - before.stages[name].seconds)
            for name, each in now.stages.items()
        },
    )


def _print_costs(costs: dict[str, Cost]) -> None:
    table = Table("stage", "wall ms", "CPU ms", "CPU ms a row")
    for name, (wall, cpu) in costs.items():
        rows = int(name.rpartition(" ")[2]) if name.startswith("step") else 1
        table.add_row(name, *(f"{1000 * each:.1f}" for each in (wall, cpu, cpu / rows)))
    Console(width=100).print(table)


def _print_loaded(rate: float, ideal: float, counters: Counters, clients: int) -> None:
    rows = counters.steps_run / max(1, counters.transformer_calls)
    print(
        f"{clients} clients: {rate:.2f} pictures/s, {rate / ideal:.0%} of the ideal; {rows:.1f} rows a batch; "
        + ", ".join(
            f"{name} {1000 * each.seconds / max(1, each.count):.0f} ms" for name, each in counters.stages.items()
        )
    )


def _cost(run: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _median(costs: list[Cost], index: int) -> float:
    return statistics.median(each[index] for each in costs)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
