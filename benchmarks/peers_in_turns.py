"""Safelight beside a lock and beside LitServe's dynamic batches, on one model: throughput and p95, in turns.

    python -m benchmarks.peers_in_turns [--rounds 5] [--pictures 64] [--clients 16]

All three speak Hugging Face's form on loopback. They are asked for the same pictures: all alike (256x256, 4 steps), by
one client and by many; and of 2 to 8 steps, arriving when they arrive (Poisson), a little more than the lock makes.
`make bench` installs LitServe.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.rows import Row, add_options, report
from benchmarks.servers import Server, Turn, peer, safelight, take_turn, throughput
from safelight.cli.bench.load import Load
from safelight.cli.bench.mix import parse_mix
from safelight.cli.bench.summary import percentile

ALIKE = parse_mix("256x256@4")
DIFFERENT = parse_mix("256x256@2-8")
ARRIVING = "2 to 8 steps, arriving when they arrive"
RATE_OF_LOCK = 1.1
TIMEOUT_S = 300.0
US, LOCK, LITSERVE = "Safelight", "FluxPipeline with a lock", "LitServe, batches of 8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A run of each server in each of four loads."""

    one: dict[str, Turn]
    many: dict[str, Turn]
    mixed: dict[str, Turn]
    arriving: dict[str, Turn]
    rate: float


def main() -> None:
    options = _parse_options()
    with ExitStack() as stack:
        servers = {
            US: stack.enter_context(safelight("sprite", "--max-queued-requests", "500")),
            LOCK: stack.enter_context(peer("lock")),
            LITSERVE: stack.enter_context(peer("litserve_batches")),
        }
        rounds: list[Round] = []
        for index in range(options.rounds):
            rounds.append(_round(servers, options, index, rounds))
            report("peers_in_turns", _rows(rounds, options), store=options.store, is_last=index == options.rounds - 1)


def _round(servers: dict[str, Server], options: argparse.Namespace, index: int, before: list[Round]) -> Round:
    """Everything once: so a run that is cut off has whole rounds."""
    many = take_turn(servers, _closed(options.clients, options.pictures), ALIKE, index)
    rate = before[0].rate if before else RATE_OF_LOCK * throughput(many[LOCK])
    return Round(
        one=take_turn(servers, _closed(1, options.pictures // 4), ALIKE, index),
        many=many,
        mixed=take_turn(servers, _closed(options.clients, options.pictures), DIFFERENT, index),
        arriving=take_turn(servers, _open(rate, options.pictures), DIFFERENT, index),
        rate=rate,
    )


def _rows(rounds: list[Round], options: argparse.Namespace) -> list[Row]:
    one, many, mixed, arriving = (
        [getattr(each, name) for each in rounds] for name in ("one", "many", "mixed", "arriving")
    )
    of_many = f"{options.clients} clients, alike"
    of_mixed = f"{options.clients} clients, 2 to 8 steps"
    note = f"{rounds[0].rate:.1f} requests a second"
    return [
        _row("pictures a second, one client, alike", one, US, LOCK),
        _row("pictures a second, one client, alike", one, LITSERVE, LOCK),
        _row(f"pictures a second, {of_many}", many, US, LOCK),
        _row(f"pictures a second, {of_many}", many, LITSERVE, LOCK),
        _row(f"pictures a second, {of_many}", many, US, LITSERVE, at_least=1.0),
        _row(f"pictures a second, {of_mixed}", mixed, US, LOCK),
        _row(f"pictures a second, {of_mixed}", mixed, LITSERVE, LOCK),
        _row(f"pictures a second, {of_mixed}", mixed, US, LITSERVE, at_least=1.3),
        _row("pictures a second of CPU, one client, alike", one, US, LOCK, of=_a_cpu_second),
        _row(f"pictures a second of CPU, {of_many}", many, US, LOCK, of=_a_cpu_second),
        _row(f"pictures a second of CPU, {of_many}", many, LITSERVE, LOCK, of=_a_cpu_second),
        _row(f"pictures a second of CPU, {of_many}", many, US, LITSERVE, of=_a_cpu_second),
        _row(f"pictures a second of CPU, {of_mixed}", mixed, US, LOCK, of=_a_cpu_second),
        _row(f"pictures a second of CPU, {of_mixed}", mixed, US, LITSERVE, of=_a_cpu_second),
        _row(f"p95, {of_many}", many, US, LOCK, of=_p95, at_most=0.75),
        _row(f"p95, {of_many}", many, LITSERVE, LOCK, of=_p95),
        _row(f"p95, {of_mixed}", mixed, US, LITSERVE, of=_p95),
        _row(f"p95, {ARRIVING}", arriving, US, LOCK, of=_p95, note=note),
        _row(f"p95, {ARRIVING}", arriving, US, LITSERVE, of=_p95, note=note),
    ]


def _row(
    what: str,
    rounds: list[dict[str, Turn]],
    of_whom: str,
    against: str,
    *,
    of: Callable[[Turn], float | None] | None = None,
    note: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    measured = of or throughput
    pairs = [(measured(each[of_whom]), measured(each[against])) for each in rounds]
    values = [mine / theirs for mine, theirs in pairs if mine and theirs]
    name = what if of_whom == US else f"{what}: {of_whom}"
    if not values:
        return Row(what=name, against=against, value=None, note="no picture came in time")
    return Row.of_rounds(name, against=against, values=values, note=note, bar="1", at_least=at_least, at_most=at_most)


def _a_cpu_second(turn: Turn) -> float:
    """Pictures for a second of CPU, which is what throughput comes to where all cores are busy."""
    return sum(each.error is None for each in turn.run.samples) / turn.cpu_s


def _p95(turn: Turn) -> float | None:
    values = [each.latency_s for each in turn.run.counted if each.error is None]
    return percentile(values, 95) if values else None


def _closed(clients: int, num_pictures: int) -> Load:
    return Load(clients=clients, requests=num_pictures, warm_up_s=0.0, timeout_s=TIMEOUT_S)


def _open(rate: float, num_pictures: int) -> Load:
    return Load(rate=rate, requests=num_pictures, warm_up_s=0.0, timeout_s=TIMEOUT_S)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=64, help="of each run; one client makes a quarter")
    parser.add_argument("--clients", type=int, default=16)
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
