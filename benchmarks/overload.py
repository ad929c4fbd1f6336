"""What of the best goodput is left when four times as much is asked: pictures a second, in turns on one server.

    python -m benchmarks.overload [--rounds 3] [--seconds 8] [--factor 4]

A real server of sprite on loopback, in its own process. The best goodput is that of a few clients which each wait for
their picture; the overload is requests that arrive when they arrive (Poisson), whatever the server says. The ratio is
what to read. The clients take of the same cores as the server: they are one process, with as little work as it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CLIENTS = (8, 16, 24)
DEAF_CLIENTS = 288
MAX_QUEUED = 16
"""With the 8 that run, as many as the most clients: few enough for a slow machine to be full at once."""
START_TIMEOUT_S = 120
BODY = b'{"inputs": "a red cat", "parameters": {"seed": 7}}'
REQUEST = (
    b"POST /score HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


@dataclass(slots=True)
class Load:
    """What the answers were, from the end of the warm-up on."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    refusals_s: list[float] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Pictures a second."""
        return self.statuses[200] / self.seconds

    def __str__(self) -> str:
        refused = sum(self.statuses.values()) - self.statuses[200]
        p50, p99 = (1000 * each for each in _quantiles(self.refusals_s))
        return (
            f"{self.goodput:5.1f} pictures/s, {refused / self.seconds:5.1f} refused/s in {p50:.0f} ms (p99 {p99:.0f})"
        )


class Client:
    """Connections to one server, each kept for the next request that finds it idle."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self) -> int:
        """The status of one answer, read to its end; 0 if there is none."""
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return 0
        is_kept = False
        try:
            writer.write(REQUEST)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
            is_kept = b"connection: close" not in head
        except (OSError, asyncio.IncompleteReadError):
            return 0
        finally:
            if is_kept:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return int(head[9:12])

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def main() -> None:
    options = _parse_options()
    with _server() as port:
        asyncio.run(_measure(port, options))


async def _measure(port: int, options: argparse.Namespace) -> None:
    tried = {clients: await _closed(port, clients, options.seconds / 2) for clients in CLIENTS}
    for clients, load in tried.items():
        print(f"{clients} clients: {load.goodput:.1f} pictures/s", flush=True)
    best = max(tried, key=lambda clients: tried[clients].goodput)
    ratios = []
    for _ in range(options.rounds):
        calm = await _closed(port, best, options.seconds)
        if not calm.goodput:
            raise SystemExit("no picture was made in time; this machine needs more --seconds")
        rate = options.factor * calm.goodput
        storm = await _open(port, rate, options.seconds)
        ratios.append(storm.goodput / calm.goodput)
        print(
            f"{best} clients: {calm.goodput:.1f} pictures/s; {rate:.0f} arrivals/s: {storm}; {ratios[-1]:.0%}",
            flush=True,
        )
    deaf = await _closed(port, DEAF_CLIENTS, options.seconds)
    print(f"{DEAF_CLIENTS} clients that ask on whatever they are told: {deaf}", flush=True)
    print(f"goodput that is left at {options.factor:g} times the best: median {statistics.median(ratios):.0%}")


async def _closed(port: int, num_clients: int, seconds: float) -> Load:
    """Clients that ask again when they were answered."""
    client, load = Client(port), Load(seconds)

    async def ask_on() -> None:
        while True:
            await _ask(client, load, started_at)

    started_at = time.perf_counter() + _warm_up(seconds)
    asking = [asyncio.create_task(ask_on()) for _ in range(num_clients)]
    return await _end(asking, client, load)


async def _open(port: int, rate: float, seconds: float) -> Load:
    """Requests that arrive at `rate` a second, each at a moment of its own."""
    client, load = Client(port), Load(seconds)
    asking: list[asyncio.Task[None]] = []

    async def arrive() -> None:
        at = time.perf_counter()
        while True:
            at += random.expovariate(rate)
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            asking.append(asyncio.create_task(_ask(client, load, started_at)))

    started_at = time.perf_counter() + _warm_up(seconds)
    asking.append(asyncio.create_task(arrive()))
    return await _end(asking, client, load)


async def _ask(client: Client, load: Load, started_at: float) -> None:
    asked_at = time.perf_counter()
    status = await client.ask()
    now = time.perf_counter()
    if now >= started_at:
        load.statuses[status] += 1
        if status != 200:
            load.refusals_s.append(now - asked_at)


async def _end(asking: list[asyncio.Task[None]], client: Client, load: Load) -> Load:
    """The load after its time; what is still asked is left alone, and drained before the next one."""
    await asyncio.sleep(_warm_up(load.seconds) + load.seconds)
    counted = Load(load.seconds, load.statuses.copy(), list(load.refusals_s))
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    client.close()
    await asyncio.sleep(1)
    return counted


def _warm_up(seconds: float) -> float:
    return seconds / 4


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    if len(seconds) < 2:
        return 0.0, 0.0
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49], cuts[98]


@contextmanager
def _server() -> Iterator[int]:
    """The port of a server that makes pictures."""
    with socket.create_server(("127.0.0.1", 0)) as free, tempfile.TemporaryDirectory() as scratch:
        port = free.getsockname()[1]
        free.close()
        run = "from safelight.cli.main import main; main()"
        options = ["--port", str(port), "--data-dir", scratch, "--max-queued-requests", str(MAX_QUEUED)]
        command = [sys.executable, "-c", run, "serve", "sprite", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            asyncio.run(_wait_until_ready(port))
            yield port
        finally:
            process.terminate()
            process.wait()


async def _wait_until_ready(port: int) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while await Client(port).ask() != 200:  # noqa: ASYNC110  another process has no event to set
            await asyncio.sleep(0.5)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--factor", type=float, default=4.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
