"""Servers as child processes, each on a port of its own, and load on them in turns."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from safelight.cli.bench.connections import Connections
from safelight.cli.bench.load import Load, Run, ask, run_load
from safelight.cli.bench.mix import Picture, Shape, pictures
from safelight.cli.bench.target import Target, parse_target

START_TIMEOUT_S = 300
PEERS_PYTHON = Path(sys.prefix) / "peers" / "bin" / "python"
"""As `make bench` makes it."""
SAFELIGHT = ("-c", "from safelight.cli.main import main; main()", "serve")
LEFT_OUT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
"""Each server waits as it is shipped: Safelight's threads sleep, the peers' spin as OpenMP does by default."""

Server = tuple[Target, psutil.Process]


@contextmanager
def safelight(model: str = "sprite", *options: str) -> Iterator[Server]:
    """A server of Safelight that makes pictures."""
    with (
        tempfile.TemporaryDirectory(prefix="safelight-bench-") as data_dir,
        serving([*SAFELIGHT, model, "--data-dir", data_dir, "--log-level", "error", *options]) as server,
    ):
        yield server


@contextmanager
def peer(module: str, *options: str) -> Iterator[Server]:
    """One of `benchmarks/peers`, by a Python of its own: what LitServe brings along must not change our server."""
    python = str(PEERS_PYTHON) if PEERS_PYTHON.exists() else sys.executable
    with serving(["-m", f"benchmarks.peers.{module}", *options], python=python) as server:
        yield server


@contextmanager
def serving(arguments: Sequence[str], *, python: str = sys.executable) -> Iterator[Server]:
    """What `python ARGUMENTS --port PORT` serves, from its first picture on; its words go to a file until it fails."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or whoever ends a benchmark leaves its servers behind
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    target = parse_target(f"http://127.0.0.1:{port}/")
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [python, *arguments, "--port", str(port)],
            env={name: value for name, value in os.environ.items() if name not in LEFT_OUT} | {"HF_HUB_OFFLINE": "1"},
            stdout=words,
            stderr=words,
            cwd=Path(__file__).parents[1],
        )
        try:
            if not asyncio.run(_makes_a_picture(target, process)):
                words.seek(0)
                sys.exit(f"{' '.join(arguments)} makes no picture: {words.read().decode(errors='replace')[-2000:]}")
            yield target, psutil.Process(process.pid)
        finally:
            _stop(process)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one server did, and what it took."""

    run: Run
    cpu_s: float
    """Of all its processes: other work on the machine does not count, unless it empties their caches."""


def throughput(turn: Turn) -> float:
    """Pictures a second, to the end of the last: a batch that ends a moment after the time is up is not lost."""
    return sum(each.error is None for each in turn.run.counted) / turn.run.seconds


def take_turn(servers: Mapping[str, Server], load: Load, shapes: Sequence[Shape], index: int) -> dict[str, Turn]:
    """Of each server, asked for the same; with each `index` another one begins."""
    names = list(servers)
    first = index % len(names)
    return {name: _turn(servers[name], load, shapes, index) for name in (*names[first:], *names[:first])}


def _turn(server: Server, load: Load, shapes: Sequence[Shape], seed: int) -> Turn:
    target, process = server
    before_s = cpu_s(process)
    run = run_on(target, load, shapes, seed)
    return Turn(run, cpu_s(process) - before_s)


def run_on(target: Target, load: Load, shapes: Sequence[Shape], seed: int = 0) -> Run:
    run = Run(target, load)
    asyncio.run(run_load(target, load, pictures(shapes, (), seed), run, asyncio.Event(), seed=seed))
    failed = [each for each in run.counted if each.error is not None]
    if failed:
        print(f"{target.shown}: {len(failed)} failed, such as {failed[0].error}: {failed[0].message}", flush=True)
    return run


def cpu_s(process: psutil.Process) -> float:
    """Of a process and its children."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


async def _makes_a_picture(target: Target, process: subprocess.Popen[bytes]) -> bool:
    connections, deadline = Connections(target, START_TIMEOUT_S), time.monotonic() + START_TIMEOUT_S
    picture = Picture(Shape("first"), "a red cat", None, 7)
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if (await ask(connections, target, picture, time.perf_counter())).error is None:
                return True
            await asyncio.sleep(0.5)
        return False
    finally:
        connections.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """With its children: LitServe leaves its worker behind if only the parent is asked."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for each in psutil.wait_procs(family, timeout=5)[1]:
        each.kill()
