"""A few large pictures among many small ones: how long the small ones take, beside first come first served.

    python -m benchmarks.mixed_sizes [--rounds 3] [--pictures 100] [--load 0.8]

Nine small pictures (128x128, 4 steps) to a large one (384x384, 16 steps), arriving when they arrive (Poisson) at 80 %
of what first come first served makes; the same arrivals for both. First come first served is the same server and
engine, told to run one request at a time.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from benchmarks.rows import Row, add_options, report
from benchmarks.servers import Turn, run_on, safelight, take_turn
from safelight.cli.bench.load import Load
from safelight.cli.bench.mix import parse_mix
from safelight.cli.bench.summary import percentile

SHAPES = parse_mix("128x128@4:9,384x384@16:1")
SMALL, LARGE = (each.name for each in SHAPES)
US, IN_TURN = "steps shared", "first come first served"
TIMEOUT_S = 600.0
PERCENTS = (50, 95, 99)
QUEUE = ("--max-queued-requests", "1000", "--request-timeout", "600")


def main() -> None:
    options = _parse_options()
    with ExitStack() as stack:
        servers = {
            US: stack.enter_context(safelight("sprite", *QUEUE)),
            IN_TURN: stack.enter_context(safelight("sprite", *QUEUE, "--max-concurrent-requests", "1")),
        }
        full = Load(clients=4, requests=options.pictures // 2, warm_up_s=0, timeout_s=TIMEOUT_S)
        capacity = run_on(servers[IN_TURN][0], full, SHAPES)
        rate = options.load * len(capacity.counted) / capacity.seconds
        load = Load(rate=rate, requests=options.pictures, warm_up_s=0, timeout_s=TIMEOUT_S)
        rounds: list[dict[str, Turn]] = []
        for index in range(options.rounds):
            rounds.append(take_turn(servers, load, SHAPES, index))
            report("mixed_sizes", _rows(rounds, rate), store=options.store, is_last=index == options.rounds - 1)


def _rows(rounds: list[dict[str, Turn]], rate: float) -> list[Row]:
    """How many times as long it takes first come first served, for the small; and us, for the large."""
    rows = []
    for percent in PERCENTS:
        ratios = [_latency(each[IN_TURN], SMALL, percent) / _latency(each[US], SMALL, percent) for each in rounds]
        what, at_least = (
            f"p{percent} of the small in a mixed trace, how many times less",
            3.0 if percent == 99 else None,
        )
        note = f"{rate:.2f} requests a second"
        rows.append(Row.of_rounds(what, against=IN_TURN, values=ratios, note=note, at_least=at_least, bar="2"))
    for percent in PERCENTS:
        ratios = [_latency(each[US], LARGE, percent) / _latency(each[IN_TURN], LARGE, percent) for each in rounds]
        what, at_most = f"p{percent} of the large in a mixed trace", 1.3 if percent == 50 else None
        rows.append(Row.of_rounds(what, against=IN_TURN, values=ratios, at_most=at_most, bar="2"))
    return rows


def _latency(turn: Turn, shape: str, percent: float) -> float:
    return percentile(
        [each.latency_s for each in turn.run.counted if each.error is None and each.shape.name == shape], percent
    )


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--load", type=float, default=0.8, help="of the capacity of first come first served")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
