"""What is left of the API's throughput while somebody has the page open: pictures a second with and without it.

    python -m benchmarks.page_beside [--rounds 8] [--seconds 10] [--pages 1]

A real server of sprite on loopback, in its own process, with an endpoint-less control plane. Clients that each wait for
their picture are measured in turns, alone and beside the requests of the page's server view, signed in as the
administrator: what it asks, as often as it asks (`web/src/server`). Both take of the same cores, and so does whatever
else runs: pictures per CPU second of the server, and what the page takes of a core by itself, are told too, and move
less. The ratios are what to read; the bar is 95 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

CLIENTS = 4
BODY = {"inputs": "a red cat", "parameters": {"seed": 7}}
START_TIMEOUT_S = 300
WORKSPACE = "/subscriptions/local/resourceGroups/local/providers/Microsoft.MachineLearningServices/workspaces/local"
VERSION = "?api-version=2024-10-01"
ASKED_EVERY_S = {
    "/metrics": 2.0,
    "/health/ready": 3.0,
    "/jobs": 3.0,
    f"{WORKSPACE}/onlineEndpoints{VERSION}": 5.0,
    f"{WORKSPACE}/connections{VERSION}": 5.0,
}
BAR = 0.95


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is, and what it takes."""

    url: str
    process: psutil.Process
    admin_token: str

    @property
    def cpu_s(self) -> float:
        """Of it and its replicas."""
        times = [each.cpu_times() for each in (self.process, *self.process.children(recursive=True))]
        return sum(each.user + each.system for each in times)


@dataclass(frozen=True, slots=True)
class Turn:
    """One window."""

    num_pictures: int
    seconds: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.num_pictures / self.seconds

    @property
    def per_cpu_s(self) -> float:
        return self.num_pictures / self.cpu_s


def main() -> None:
    options = _parse_options()
    with _serving() as server:
        asyncio.run(_measure(server, options))


async def _measure(server: Server, options: argparse.Namespace) -> None:
    await _turn(server, options.seconds / 2, pages=0)
    still = [await _turn(server, options.seconds, pages=pages, clients=0) for pages in (0, options.pages)]
    share = (still[1].cpu_s - still[0].cpu_s) / options.seconds
    print(f"what the page takes of one core while no picture is made: {share:.1%}", flush=True)
    throughput, economy = [], []
    for index in range(options.rounds):
        order = (0, options.pages) if index % 2 else (options.pages, 0)
        turns = {pages: await _turn(server, options.seconds, pages=pages) for pages in order}
        alone, beside = turns[0], turns[options.pages]
        throughput.append(beside.per_s / alone.per_s)
        economy.append(beside.per_cpu_s / alone.per_cpu_s)
        print(
            f"alone {alone.per_s:5.2f} pictures/s, beside the page {beside.per_s:5.2f}: {throughput[-1]:.0%}",
            flush=True,
        )
    _tell(f"pictures a second, {CLIENTS} clients", throughput, bar=BAR)
    _tell("pictures a second of the server's CPU", economy)


def _tell(what: str, ratios: Sequence[float], *, bar: float | None = None) -> None:
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0], ratios[0], ratios[0])
    judged = "" if bar is None else f", bar >= {bar:.2f} {'met' if middle >= bar else 'missed'}"
    print(
        f"{what}, beside the page against alone: {middle:.3f}x ({low:.3f} to {high:.3f}, {len(ratios)} rounds){judged}"
    )


async def _turn(server: Server, seconds: float, *, pages: int, clients: int = CLIENTS) -> Turn:
    async with contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=None))
        asking = [asyncio.create_task(_page(server)) for _ in range(pages)]
        counter, is_over = itertools.count(), asyncio.Event()

        async def draw() -> None:
            while not is_over.is_set():
                (await api.post("/score", json=BODY)).raise_for_status()
                next(counter)

        cpu_s, began_at = server.cpu_s, time.perf_counter()
        drawing = [asyncio.create_task(draw()) for _ in range(clients)]
        await asyncio.sleep(seconds)
        is_over.set()
        await asyncio.gather(*drawing)
        turn = Turn(next(counter), time.perf_counter() - began_at, server.cpu_s - cpu_s)
        for each in asking:
            each.cancel()
        for each in asking:
            with contextlib.suppress(asyncio.CancelledError):
                await each
        return turn


async def _page(server: Server) -> None:
    """What an open page asks, until it is closed."""
    headers = {"authorization": f"Bearer {server.admin_token}"}
    async with (
        httpx.AsyncClient(base_url=server.url, headers=headers, timeout=None) as browser,
        asyncio.TaskGroup() as each,
    ):

        async def ask_on(path: str, every_s: float) -> None:
            while True:
                (await browser.get(path)).raise_for_status()
                await asyncio.sleep(every_s)

        for path, every_s in ASKED_EVERY_S.items():
            each.create_task(ask_on(path, every_s))


@contextlib.contextmanager
def _serving() -> Iterator[Server]:
    """From its first picture on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as data_dir:
        run = "from safelight.cli.main import main; main()"
        command = [sys.executable, "-c", run, "serve", "sprite", "--port", str(port), "--data-dir", data_dir]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_until_ready(url := f"http://127.0.0.1:{port}")
            yield Server(url, psutil.Process(process.pid), (Path(data_dir) / "admin-token").read_text().strip())
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.post(f"{url}/score", json=BODY, timeout=START_TIMEOUT_S).is_success:
                return
        time.sleep(0.5)
    sys.exit(f"no picture came within {START_TIMEOUT_S} s")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pages", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
