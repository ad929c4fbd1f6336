"""FLUX.1-schnell at its real size, with random weights: what a picture takes of a machine, stage by stage.

    python -m benchmarks.real_size [--quantization int8] [--steps 1 4] [--size 256] [--folder FOLDER] [--keep] [--yes]
    python -m benchmarks.real_size --compare

Writes the model (17 GB in int8), asks before, and removes it after. Then it makes pictures of each number of steps as
`safelight generate` does, and one by HTTP of `safelight serve`. Seconds of CPU and memory are those of the replica,
read from /proc, so it runs on Linux only. The first picture finds the files in the system's cache, as they have just
been written. Seconds of wall clock are only as good as the machine is idle. `--compare` sets the precisions beside each
other instead, at the same width and a few layers: see `benchmarks.precisions`.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.precisions import compare
from benchmarks.process_watch import ReplicaWatch
from benchmarks.random_flux import SPREAD, plan_flux, write_flux
from benchmarks.replica_run import DAY_S, PROMPT, Run, check_picture, generate
from safelight.settings import load_settings

ROUNDS = 3
FREE_BYTES_LEFT = 2_000_000_000
PEAK_BAR_BYTES = 20 * 2**30


def main() -> None:
    options = _parse_options()
    if options.compare:
        compare(ROUNDS, options.threads)
        return
    files = plan_flux(options.quantization)
    num_bytes = sum(each.num_bytes for each in files.values())
    with _folder(options, num_bytes) as folder:
        started_at = time.perf_counter()
        if not (folder / "model_index.json").exists():
            write_flux(folder, files)
            print(f"{num_bytes / 1e9:.1f} GB written in {time.perf_counter() - started_at:.0f} s", flush=True)
        runs = []
        for steps in options.steps:
            settings = load_settings(model=str(folder), num_threads=options.threads, memory=options.memory)
            runs.append(asyncio.run(generate(folder, settings, size=options.size, steps=steps)))
            _print([runs[-1]])
        runs.append(_ask_server(folder, options))
        _print(runs)


@contextmanager
def _folder(options: argparse.Namespace, num_bytes: int) -> Iterator[Path]:
    """Where the model is, or will be; removed at the end unless it was there before or is to be kept."""
    parent = options.folder.parent if options.folder else Path(tempfile.gettempdir())
    if options.folder and (options.folder / "model_index.json").exists():
        yield options.folder
        return
    free = shutil.disk_usage(parent).free
    if free < num_bytes + FREE_BYTES_LEFT:
        sys.exit(f"{parent} has {free / 1e9:.1f} GB free; {(num_bytes + FREE_BYTES_LEFT) / 1e9:.1f} GB are needed")
    print(f"This writes {num_bytes / 1e9:.1f} GB of random weights to {options.folder or parent}", end="")
    print(", and keeps them." if options.keep else ", and removes them at the end.", flush=True)
    if not options.yes and input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit("Nothing was written.")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="safelight-real-size-"))
    try:
        yield folder
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _ask_server(folder: Path, options: argparse.Namespace) -> Run:
    """A server, one request over HTTP, and its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-c",
        "from safelight.cli.main import main; main()",
        "serve",
        str(folder),
    ]
    command += ["--port", str(port), "--log-level", "warning", "--no-online-endpoints", "--request-timeout", str(DAY_S)]
    if options.threads:
        command += ["--num-threads", str(options.threads)]
    steps = options.steps[0]
    body = {
        "inputs": PROMPT,
        "parameters": {"width": options.size, "height": options.size, "num_inference_steps": steps, "seed": 7},
    }
    with ReplicaWatch() as watch, subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        run = Run(f"HTTP, {steps} step{'s' if steps > 1 else ''}", watch)
        begun_at = time.perf_counter()
        try:
            _wait_until_ready(port, server)
            ready_at = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DAY_S)
            connection.request("POST", "/", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            answered_at = time.perf_counter()
        finally:
            server.terminate()
    if answer.status != 200:
        sys.exit(f"the server answered {answer.status}: {content[:500]!r}")
    check_picture(content, options.size)
    run.stages = [("start until ready", begun_at, ready_at), ("the request", ready_at, answered_at)]
    return run


def _wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    sys.exit(f"the server ended with {server.returncode}")


def _print(runs: list[Run]) -> None:
    table = Table("run", "stage", "wall s", "CPU s")
    for run in runs:
        for row in run.rows():
            table.add_row(*row)
        table.add_section()
    console = Console(width=100)
    console.print(table)
    memory = Table("run", "peak GiB", "of it private", "of it mapped", "most private", "at most 20 GiB")
    for run in runs:
        peak = run.watch.peak()
        total = peak.private_bytes + peak.mapped_bytes
        sizes = (total, peak.private_bytes, peak.mapped_bytes, run.watch.peak_private_bytes())
        told = "yes" if total <= PEAK_BAR_BYTES else "NO"
        memory.add_row(run.name, *(f"{each / 2**30:.2f}" for each in sizes), told)
    console.print(memory)
    sys.stdout.flush()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantization", choices=sorted(SPREAD), default="int8")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--size", type=int, default=256, help="pixels of each side")
    parser.add_argument("--folder", type=Path, help="where the model is written, or was kept")
    parser.add_argument("--keep", action="store_true", help="do not remove the model at the end")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--compare", action="store_true", help="compare the precisions instead")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--memory", help="as --memory of safelight serve: 20GiB")
    return parser.parse_args()


if __name__ == "__main__":
    main()
