"""What HTTP and the way to the replica cost: CPU a request, and time added, with an engine that answers at once.

    python -m benchmarks.http_cost [--rounds 5] [--requests 1000]

The gateway's CPU is read from its process, so other work on the machine does not count. The bare peer is uvicorn with
the smallest ASGI application there can be, which answers a file of the same size: nothing in Python is faster with the
same server under it.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack

import psutil

from benchmarks.rows import Row, add_options, report
from benchmarks.servers import run_on, serving
from safelight.cli.bench.load import Load
from safelight.cli.bench.mix import Shape, parse_mix
from safelight.cli.bench.summary import percentile
from safelight.cli.bench.target import Target, parse_target

PNG = parse_mix("64x64@1")
LARGE = parse_mix("1152x1152@1")
CLIENTS = 8


def main() -> None:
    options = _parse_options()
    with ExitStack() as stack:
        ours, process = stack.enter_context(serving(["-m", "benchmarks.instant_server"]))
        bare, bare_process = stack.enter_context(serving(["-m", "benchmarks.peers.bare"]))
        openai = parse_target(f"http://{ours.authority}/v1")
        rates: dict[str, list[float]] = {"png": [], "json": [], "bare": [], "large": []}
        added_ms, bare_ms = [], []
        for index in range(options.rounds):
            rates["png"].append(_requests_a_core(ours, process, options.requests, index))
            rates["json"].append(_requests_a_core(openai, process, options.requests, index))
            rates["bare"].append(_requests_a_core(bare, bare_process, options.requests, index))
            rates["large"].append(_requests_a_core(ours, process, options.requests // 25, index, LARGE))
            added_ms.append(_p50_ms(ours, options.requests // 4))
            bare_ms.append(_p50_ms(bare, options.requests // 4))
            report(
                "http_cost", _rows(rates, added_ms, bare_ms), store=options.store, is_last=index == options.rounds - 1
            )


def _rows(rates: dict[str, list[float]], added_ms: list[float], bare_ms: list[float]) -> list[Row]:
    return [
        Row.of_rounds(
            "requests a second and core of the gateway, PNG of 12 KB",
            against="none: CPU of the gateway's process",
            values=rates["png"],
            unit="/s",
            at_least=1_000,
            bar="4",
        ),
        Row.of_rounds(
            "requests a second and core of the gateway, JSON of 16 KB",
            against="none: CPU of the gateway's process",
            values=rates["json"],
            unit="/s",
            at_least=1_000,
            bar="4",
        ),
        Row.of_rounds(
            "CPU of a request, PNG of 12 KB",
            against="bare ASGI on uvicorn",
            values=[theirs / mine for mine, theirs in zip(rates["png"], rates["bare"], strict=True)],
        ),
        Row.of_rounds(
            "added at p50 by gateway and replica, one client",
            against="bare ASGI on uvicorn",
            values=[mine - theirs for mine, theirs in zip(added_ms, bare_ms, strict=True)],
            unit="ms",
            at_most=2.0,
            bar="4",
            note="wall clock: as good as the machine is idle; encoding the PNG in the replica is part of it",
        ),
        Row.of_rounds(
            "CPU of the gateway for a picture of 4 MB",
            against="copying 4 MB once",
            values=[_copies(1 / each) for each in rates["large"]],
            note="receiving and sending go through the kernel, which copies too",
        ),
    ]


def _requests_a_core(
    target: Target, process: psutil.Process, num_requests: int, index: int, shapes: tuple[Shape, ...] = PNG
) -> float:
    before = _own_cpu_s(process)
    run = run_on(target, Load(clients=CLIENTS, requests=num_requests, warm_up_s=0), shapes, index)
    made = sum(each.error is None for each in run.samples)
    return made / (_own_cpu_s(process) - before)


def _own_cpu_s(process: psutil.Process) -> float:
    """Of the gateway alone: the replica is another process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _p50_ms(target: Target, num_requests: int) -> float:
    run = run_on(target, Load(clients=1, requests=num_requests, warm_up_s=0), PNG)
    return 1_000 * percentile([each.latency_s for each in run.counted], 50)


def _copies(seconds: float) -> float:
    """How many times 4 MB could be copied in so long."""
    picture, began_at = bytes(4_000_000), time.process_time()
    for _ in range(200):
        bytearray(picture)
    return seconds / ((time.process_time() - began_at) / 200)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1_000)
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
