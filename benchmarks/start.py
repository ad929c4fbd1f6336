"""What a start takes: CPU of `safelight serve sprite` until the first picture has been answered, warm from the disk.

    python -m benchmarks.start [--rounds 5]

Of the gateway, with a new data directory, and of the replica. Who waits for the picture asks twice a second, which is
part of it.
"""

from __future__ import annotations

import argparse

from benchmarks.rows import Row, add_options, report
from benchmarks.servers import cpu_s, safelight


def main() -> None:
    options = _parse_options()
    with safelight():
        pass  # the disk is warm now
    gateways: list[float] = []
    replicas: list[float] = []
    for index in range(options.rounds):
        with safelight() as (_, process):
            times = process.cpu_times()
            gateways.append(float(times.user + times.system))
            replicas.append(cpu_s(process) - gateways[-1])
        report("start", _rows(gateways, replicas), store=options.store, is_last=index == options.rounds - 1)


def _rows(gateways: list[float], replicas: list[float]) -> list[Row]:
    together = [gateway + replica for gateway, replica in zip(gateways, replicas, strict=True)]
    return [
        Row.of_rounds(
            "CPU from `safelight serve` to the first picture of sprite",
            against="none: CPU of both processes",
            values=together,
            unit="s",
            at_most=6.0,
            bar="5",
        ),
        Row.of_rounds("the gateway's part of it", against="none: CPU of its process", values=gateways, unit="s"),
        Row.of_rounds("the replica's part of it", against="none: CPU of its process", values=replicas, unit="s"),
    ]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
