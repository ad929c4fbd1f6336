"""Whether anything grows without bound: memory and descriptors of gateway and replica, under three kinds of load.

    python -m benchmarks.growth [--minutes 60] [--waiting 10000] [--streams 1000]

On `benchmarks.instant_server`, whose engine costs nothing: so an hour is hundreds of thousands of requests. First
10,000 requests that wait at once, then 1,000 streams, each until all are answered: what is held after the last time
must have been held before. Then mixed load, with clients that leave: the slope of its second half, by least squares.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.rows import Row, add_options, report
from benchmarks.servers import serving
from safelight.cli.bench.target import Target

MIB = 2**20
CLIENTS = 16
SAMPLE_S = 1.0
STEP_S = 0.0005
PROMPTS = 500
TIMES = 4
"""How often everybody waits at once: the first times make room that the others use."""


@dataclass(frozen=True, slots=True)
class Held:
    """By gateway and replica together."""

    at: float
    memory: int
    descriptors: int


def main() -> None:
    options = _parse_options()
    most = max(options.waiting, options.streams)
    server = [
        "-m",
        "benchmarks.instant_server",
        "--queue",
        str(most),
        "--connections",
        str(2 * most),
        "--step",
        str(STEP_S),
    ]
    rows: list[Row] = []
    with serving(server) as (target, process):
        for what, num, accept in (
            (f"{options.waiting} requests that wait", options.waiting, "image/png"),
            (f"{options.streams} streams", options.streams, "text/event-stream"),
        ):
            after = [asyncio.run(_all_at_once(target, process, num, accept)) for _ in range(TIMES)]
            rows.append(_after(what, after))
            report("growth", rows, store=options.store, is_last=False)
        samples, num_requests = asyncio.run(_mixed(target, process, 60 * options.minutes))
        rows += _slopes(samples, num_requests, options.minutes)
        report("growth", rows, store=options.store)


async def _all_at_once(target: Target, process: psutil.Process, num: int, accept: str) -> Held:
    answered = await asyncio.gather(*(_ask(target, accept, index) for index in range(num)))
    print(f"{num} at once as {accept}: {sum(answered)} pictures; held {_held(process)}", flush=True)
    await asyncio.sleep(2)
    return _held(process)


async def _mixed(target: Target, process: psutil.Process, seconds: float) -> tuple[list[Held], int]:
    """Clients that ask for files and streams, and of which some leave."""
    deadline, samples, counts = time.monotonic() + seconds, [], [0] * CLIENTS

    async def client(index: int) -> None:
        draw = random.Random(index)
        while time.monotonic() < deadline:
            accept = draw.choice(("image/png", "image/jpeg", "application/json", "text/event-stream"))
            with suppress(TimeoutError):
                async with asyncio.timeout(0.002 if draw.random() < 0.1 else 60):
                    await _ask(target, accept, draw.randrange(10**9))
            counts[index] += 1

    async def watch() -> None:
        while time.monotonic() < deadline:
            samples.append(_held(process))
            await asyncio.sleep(SAMPLE_S)

    await asyncio.gather(watch(), *(client(index) for index in range(CLIENTS)))
    return samples, sum(counts)


async def _ask(target: Target, accept: str, seed: int) -> bool:
    """One request on a connection of its own; whether it was answered with 200."""
    try:
        reader, writer = await asyncio.open_connection(target.host, target.port)
    except OSError:
        return False
    try:
        writer.writelines(_request(target, accept, seed))
        return (await reader.read()).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
    finally:
        writer.close()


def _request(target: Target, accept: str, seed: int) -> Iterator[bytes]:
    body = json.dumps(
        {"inputs": f"number {seed % PROMPTS}", "parameters": {"seed": seed, "num_inference_steps": 2}}
    ).encode()
    yield f"POST / HTTP/1.1\r\nhost: {target.authority}\r\naccept: {accept}\r\nconnection: close\r\n".encode()
    yield f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _held(process: psutil.Process) -> Held:
    family = (process, *process.children(recursive=True))
    memory = sum(each.memory_full_info().uss for each in family)
    return Held(time.monotonic(), memory, sum(each.num_fds() for each in family))


def _after(what: str, after: list[Held]) -> Row:
    told = ", ".join(f"{each.memory / MIB:.0f} MiB and {each.descriptors} descriptors" for each in after)
    return Row(
        what=f"memory after {what}, {TIMES} times",
        against="the most that was held after one before",
        value=(after[-1].memory - max(each.memory for each in after[:-1])) / MIB,
        rounds=len(after),
        unit="MiB",
        at_most=8.0,
        bar="9",
        note=f"after each time: {told}",
    )


def _slopes(samples: list[Held], num_requests: int, minutes: float) -> list[Row]:
    later = samples[len(samples) // 2 :]
    hours = [each.at / 3600 for each in later]
    memory = statistics.linear_regression(hours, [each.memory / MIB for each in later]).slope
    descriptors = statistics.linear_regression(hours, [float(each.descriptors) for each in later]).slope
    note = f"{num_requests} requests in {minutes:g} minutes; the slope is of the second half"
    against = "the start of that half"
    return [
        Row(
            what="memory under mixed load",
            against=against,
            value=memory * (later[-1].at - later[0].at) / 3600,
            rounds=1,
            unit="MiB",
            at_most=4.0,
            bar="9",
            note=f"{note}: {memory:.1f} MiB an hour, {later[-1].memory / MIB:.0f} MiB at its end",
        ),
        Row(
            what="descriptors under mixed load",
            against=against,
            value=descriptors * (later[-1].at - later[0].at) / 3600,
            rounds=1,
            unit="descriptors",
            at_most=1.0,
            bar="9",
            note=f"{note}: {descriptors:.1f} an hour, {later[-1].descriptors} at its end",
        ),
    ]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=1_000)
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
