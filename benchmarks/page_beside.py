"""What is left of the API's throughput while somebody has the page open: pictures a second with and without it.

    python -m benchmarks.page_beside [--rounds 8] [--pictures 40]

Clients that each wait for their picture are measured in turns, alone and beside the requests of the page's server view,
signed in as the administrator: what it asks, as often as it asks (`web/src/server`). Page and clients take of the same
cores as the server, and so does whatever else runs: pictures a second of the server's CPU, and what the page takes of a
core by itself, move less.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from benchmarks.rows import Row, add_options, report
from benchmarks.servers import SAFELIGHT, Server, cpu_s, serving

CLIENTS = 4
STILL_S = 20
WORKSPACE = "/subscriptions/local/resourceGroups/local/providers/Microsoft.MachineLearningServices/workspaces/local"
VERSION = "?api-version=2024-10-01"
ASKED_EVERY_S = {
    "/metrics": 2.0,
    "/health/ready": 3.0,
    "/jobs": 3.0,
    f"{WORKSPACE}/onlineEndpoints{VERSION}": 5.0,
    f"{WORKSPACE}/connections{VERSION}": 5.0,
}


@dataclass(frozen=True, slots=True)
class Turn:
    """So many pictures, and what they took."""

    num_pictures: int
    seconds: float
    cpu_s: float
    """Of the server and its replicas."""

    @property
    def per_s(self) -> float:
        return self.num_pictures / self.seconds

    @property
    def per_cpu_s(self) -> float:
        return self.num_pictures / self.cpu_s


def main() -> None:
    options = _parse_options()
    with tempfile.TemporaryDirectory() as data_dir:
        command = [*SAFELIGHT, "sprite", "--data-dir", data_dir, "--log-level", "error"]
        with serving(command) as server:
            token = (Path(data_dir) / "admin-token").read_text().strip()
            asyncio.run(_measure(server, token, options))


async def _measure(server: Server, token: str, options: argparse.Namespace) -> None:
    await _turn(server, options.pictures)
    share = await _share_of_a_core(server, token)
    throughput, economy = [], []
    for index in range(options.rounds):
        turns = {}
        for is_open in (True, False) if index % 2 else (False, True):
            async with _page(server, token if is_open else None):
                turns[is_open] = await _turn(server, options.pictures)
        throughput.append(turns[True].per_s / turns[False].per_s)
        economy.append(turns[True].per_cpu_s / turns[False].per_cpu_s)
        alone = "no page open"
        rows = [
            Row.of_rounds(
                f"pictures a second, {CLIENTS} clients, a page open",
                against=alone,
                values=list(throughput),
                at_least=0.95,
                bar="the page",
            ),
            Row.of_rounds("pictures a second of the server's CPU", against=alone, values=list(economy)),
            Row.of_rounds("what the page takes of a core", against="a server at rest", values=[share], unit="%"),
        ]
        report("page_beside", rows, store=options.store, is_last=index == options.rounds - 1)


async def _share_of_a_core(server: Server, token: str) -> float:
    """In percent, while no picture is made."""
    taken = []
    for each in (None, token):
        async with _page(server, each):
            before_s = cpu_s(server[1])
            await asyncio.sleep(STILL_S)
            taken.append(cpu_s(server[1]) - before_s)
    return 100 * (taken[1] - taken[0]) / STILL_S


async def _turn(server: Server, num_pictures: int) -> Turn:
    target, process = server
    seeds = count(1)
    async with httpx.AsyncClient(base_url=f"http://{target.authority}", timeout=None) as api:

        async def draw() -> None:
            while (seed := next(seeds)) <= num_pictures:
                answer = await api.post("/score", json={"inputs": "a red cat", "parameters": {"seed": seed}})
                answer.raise_for_status()

        before_s, began_at = cpu_s(process), time.perf_counter()
        await asyncio.gather(*(draw() for _ in range(CLIENTS)))
        return Turn(num_pictures, time.perf_counter() - began_at, cpu_s(process) - before_s)


@asynccontextmanager
async def _page(server: Server, token: str | None) -> AsyncIterator[None]:
    """What an open page asks meanwhile; without a token there is none."""
    headers = {"authorization": f"Bearer {token}"}
    base = f"http://{server[0].authority}"
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=None) as browser:

        async def ask_on(path: str, every_s: float) -> None:
            while True:
                (await browser.get(path)).raise_for_status()
                await asyncio.sleep(every_s)

        asked = ASKED_EVERY_S.items() if token else ()
        asking = [asyncio.create_task(ask_on(path, every_s)) for path, every_s in asked]
        try:
            yield
            if any(each.done() for each in asking):
                raise SystemExit("the server refused what the page asks")
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=40, help="of each turn")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
