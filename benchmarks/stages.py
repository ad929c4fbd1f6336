"""Where the time of a picture goes, stage by stage, and how near a server comes to what its engine could do.

    python -m benchmarks.stages [--clients 16] [--pictures 256] [--rounds 5]

In turns: the engine by itself, a server with one client, and a server with many. One client is held against the engine
making one picture after the other; many against the ideal, which is what the engine's stages would take if no core
ever waited: all of their CPU time, at the best batch, on all of the cores. Where the rest went is told too: a core's
milliseconds of a picture, by the process that took them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from rich.console import Console
from rich.table import Table

from benchmarks import stage_costs
from benchmarks.rows import Row, add_options, report
from benchmarks.servers import Server, cpu_s, run_on, safelight
from benchmarks.stage_costs import Costs, StageCosts
from safelight.cli.bench.load import Load
from safelight.cli.bench.mix import parse_mix
from safelight.engine.engine import Engine
from safelight.serving.backends.child_environment import share_of_cores

BATCHES = (1, 2, 4, 8, 16)
STEPS = 4
ALIKE = parse_mix(f"256x256@{STEPS}")
ALONE = 8
"""Pictures that the engine makes one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Where the seconds of all cores went, for a picture."""

    replica: float
    gateway: float
    clients: float
    rest: float
    """Idle, or other work's."""

    @property
    def pictures(self) -> float:
        """A second."""
        return share_of_cores(1) / (self.replica + self.gateway + self.clients + self.rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A server's pictures, beside what the engine's stages cost."""

    costs: dict[int, Costs]
    """Of a row, by the batch."""
    one: Spent
    many: Spent

    @property
    def alone(self) -> float:
        return 1 / self.costs[1].wall.picture(STEPS)

    @property
    def ideal(self) -> float:
        return share_of_cores(1) / self.least

    @property
    def least(self) -> float:
        """CPU seconds of a picture, at the best batch."""
        return min(each.cpu.picture(STEPS) for each in self.costs.values())


def main() -> None:
    options = _parse_options()
    stage_costs.become_a_replica()
    engine = stage_costs.load_sprite(share_of_cores(1))
    rounds: list[Round] = []
    with safelight("sprite", "--max-queued-requests", "100") as server:
        _costs(engine, 0)
        for index in range(options.rounds):
            rounds.append(_round(engine, server, options, index))
            report("stages", _rows(rounds, options), store=options.store, is_last=index == options.rounds - 1)
    _print_spent(rounds)
    _print_costs({rows: [each.costs[rows] for each in rounds] for rows in BATCHES})


def _round(engine: Engine, server: Server, options: argparse.Namespace, index: int) -> Round:
    costs = _costs(engine, 10_000 * (index + 1))
    one = _spend(server, Load(clients=1, requests=options.pictures // 4, warm_up_s=0.0), index)
    many = _spend(server, Load(clients=options.clients, requests=options.pictures, warm_up_s=0.0), index)
    return Round(costs=costs, one=one, many=many)


def _costs(engine: Engine, first_seed: int) -> dict[int, Costs]:
    alone = [stage_costs.measure(engine, 1, first_seed + index) for index in range(ALONE)]
    in_batches = {rows: stage_costs.measure(engine, rows, first_seed + 100 * rows) for rows in BATCHES[1:]}
    return {1: _mean(alone)} | in_batches


def _mean(costs: list[Costs]) -> Costs:
    return Costs(stage_costs.mean([each.wall for each in costs]), stage_costs.mean([each.cpu for each in costs]))


def _spend(server: Server, load: Load, index: int) -> Spent:
    target, process = server

    def taken() -> tuple[float, float, float]:
        own = process.cpu_times()
        return cpu_s(process), own.user + own.system, time.process_time()

    before = taken()
    run = run_on(target, load, ALIKE, index)
    family, gateway, clients = (now - then for now, then in zip(taken(), before, strict=True))
    number = sum(each.error is None for each in run.counted)
    rest = run.seconds * share_of_cores(1) - family - clients
    return Spent(
        replica=(family - gateway) / number, gateway=gateway / number, clients=clients / number, rest=rest / number
    )


def _rows(rounds: list[Round], options: argparse.Namespace) -> list[Row]:
    many = f"pictures a second, {options.clients} clients"
    ideal = "the ideal: CPU time of the stages at the best batch, no core ever waits"
    alone = "the engine alone, one picture after the other"
    return [
        Row.of_rounds(
            many, against=ideal, values=[each.many.pictures / each.ideal for each in rounds], at_least=0.95, bar="1"
        ),
        Row.of_rounds(
            "pictures a second, one client",
            against=alone,
            values=[each.one.pictures / each.alone for each in rounds],
            at_least=0.97,
            bar="1",
        ),
        Row.of_rounds("the ideal", against=alone, values=[each.ideal / each.alone for each in rounds]),
    ]


def _print_spent(rounds: Sequence[Round]) -> None:
    table = Table("a core's ms of a picture", "the stages at their best", *(field.name for field in fields(Spent)))

    def middle(value: Callable[[Round], float]) -> str:
        return f"{1000 * statistics.median(map(value, rounds)):.0f}"

    def spent(load: str, name: str) -> Callable[[Round], float]:
        return lambda each: float(getattr(getattr(each, load), name))

    for load in ("one", "many"):
        table.add_row(
            f"{load} at a time",
            middle(lambda each: each.least),
            *(middle(spent(load, field.name)) for field in fields(Spent)),
        )
    Console(width=110).print(table)


def _print_costs(costs: dict[int, list[Costs]]) -> None:
    table = Table("ms of a row", "encode", "a step", "decode", "PNG", f"a picture of {STEPS} steps")
    for rows, each in costs.items():
        middle = _mean(each)
        for clock, stages in (("wall", middle.wall), ("CPU", middle.cpu)):
            table.add_row(f"{clock}, {rows} together", *(f"{1000 * value:.0f}" for value in _values(stages)))
    Console(width=110).print(table)


def _values(costs: StageCosts) -> tuple[float, ...]:
    return costs.encode, costs.step, costs.decode, costs.png, costs.picture(STEPS)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=256, help="of each run; one client makes a quarter")
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
