"""One measurement from its first picture to its report."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter

from rich.console import Console
from rich.markup import escape

from safelight import __version__
from safelight.cli.bench.connections import Connections
from safelight.cli.bench.load import PAUSE_S, REFUSALS, Load, Run, ask, run_load
from safelight.cli.bench.mix import Picture, Shape, pictures
from safelight.cli.bench.own_server import OwnServer, own_server
from safelight.cli.bench.plot import plot_run
from safelight.cli.bench.report import cost_per_1000, print_ratios, print_summary, shown_progress
from safelight.cli.bench.summary import Ratio, Summary, ratios, summarize
from safelight.cli.bench.target import Target
from safelight.cli.output import printable
from safelight.cli.pictures.output_files import write_whole
from safelight.errors import SafelightError

LEAST_COLUMNS = 100
"""A terminal with fewer breaks the lines of a table; no figure is cut."""
NOTHING_DUE = "no request was due while it counted; give a longer --duration, or a higher --rate"


class NoPicture(SafelightError):
    """A server that was to be measured makes none; says in its words why not."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What requests ask for."""

    shapes: Sequence[Shape]
    prompts: Sequence[str]
    seed: int

    def pictures(self, seed: int = 0) -> Iterator[Picture]:
        return pictures(self.shapes, self.prompts, self.seed + seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Of what, and how."""

    first: Target | OwnServer
    second: Target | None
    load: Load
    asked: Asked
    rounds: int


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where figures go beside the terminal."""

    json: Path | None
    plot: Path | None
    price_per_hour: float | None


def measure(measurement: Measurement, outputs: Outputs) -> None:
    """Of one server, or of two in turns. Raises SafelightError."""
    for path in (outputs.json, outputs.plot):
        if path is not None and path != Path("-"):
            write_whole(path, None)
    console = Console(emoji=False, highlight=False, soft_wrap=True, stderr=outputs.json == Path("-"))
    console.width = max(console.width, LEAST_COLUMNS)
    progress = Console(emoji=False, highlight=False, soft_wrap=True, stderr=True)
    try:
        asyncio.run(_measured(measurement, progress, partial(_report, console, measurement, outputs)))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _measured(measurement: Measurement, console: Console, report: Callable[[Sequence[Run]], None]) -> None:
    """With its report, which no signal cuts off: they are heard between two steps of the loop, and it is one."""
    runs: list[Run] = []
    async with _stopped_by_signals(runs) as stop:
        try:
            await run_rounds(measurement, console, runs, stop)
        except asyncio.CancelledError:
            if any(run.counted for run in runs):
                report(runs)
            raise
        report(runs)


async def run_rounds(measurement: Measurement, console: Console, runs: list[Run], stop: asyncio.Event) -> None:
    """Each server in its turn; the one that begins takes turns, too. What comes of it is in `runs` at once."""
    asked, rounds = measurement.asked, measurement.rounds
    async with _reachable(measurement, console) as target:
        targets = [target] if measurement.second is None else [target, measurement.second]
        for each in targets:
            with console.status(escape(f"Asking {each.shown} for a first picture ...")):
                await _first_pictures(each, measurement.load, asked)
        for index in range(rounds):
            for each in targets if index % 2 == 0 else targets[::-1]:
                if not stop.is_set():
                    runs.append(run := Run(each, measurement.load))
                    place = "first" if each is target else "second"
                    title = "Measuring" if measurement.second is None else f"Round {index + 1}/{rounds}, {place}"
                    async with shown_progress(console, run, title):
                        await run_load(
                            each, measurement.load, asked.pictures(index), run, stop, seed=asked.seed + index
                        )


@asynccontextmanager
async def _reachable(measurement: Measurement, console: Console) -> AsyncIterator[Target]:
    subject = measurement.first
    if isinstance(subject, Target):
        yield subject
        return
    console.print(f"Starting a server of {printable(subject.model)} ...", markup=False)
    async with own_server(subject) as target:
        yield target


@asynccontextmanager
async def _stopped_by_signals(runs: Sequence[Run]) -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C or SIGTERM sets; the second, or one before the first run, ends the command at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"

    def on_signal() -> None:
        if stop.is_set() or not runs:
            task.cancel()
        stop.set()

    for each in signals:
        loop.add_signal_handler(each, on_signal)
    try:
        yield stop
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


async def _first_pictures(target: Target, load: Load, asked: Asked) -> None:
    """One of each shape: what cannot be made at all is said at once, in the server's words. Raises NoPicture."""
    deadline, connections = monotonic() + load.timeout_s, Connections(target, load.timeout_s)
    example = next(asked.pictures())
    try:
        for shape in asked.shapes:
            picture = Picture(shape, example.prompt, None if shape.steps is None else shape.steps[0], example.seed)
            sample = await ask(connections, target, picture, perf_counter())
            while sample.error in REFUSALS and monotonic() < deadline:  # it loads, or others are served
                await asyncio.sleep(min(sample.retry_after_s or PAUSE_S, max(0.0, deadline - monotonic())))
                sample = await ask(connections, target, picture, perf_counter())
            if sample.error is not None:
                of = f" of {shape.name}" if len(asked.shapes) > 1 else ""
                raise NoPicture(f"{target.shown} makes no picture{of}: {sample.error}: {sample.message}")
    finally:
        connections.close()


def _report(console: Console, measurement: Measurement, outputs: Outputs, runs: Sequence[Run]) -> None:
    if not any(run.counted for run in runs):
        is_stopped = not runs or any(run.is_stopped for run in runs)
        raise NoPicture("stopped before anything was measured" if is_stopped else NOTHING_DUE)
    by_server: dict[int, list[Run]] = {}
    for run in runs:
        by_server.setdefault(id(run.target), []).append(run)
    summaries = [summarize(same) for same in by_server.values()]
    turns = list(zip(*by_server.values(), strict=False)) if len(by_server) == 2 else []
    found = ratios([(summarize([first]), summarize([second])) for first, second in turns])
    with ExitStack() as files:  # each is written whatever becomes of the others, and of a terminal that is closed
        if outputs.plot is not None:
            files.callback(_write, outputs.plot, plot_run(runs))
        if outputs.json is not None:
            document = _document(summaries, found, measurement, outputs.price_per_hour)
            files.callback(_write, outputs.json, json.dumps(document, indent=2) + "\n")
        for each in summaries:
            print_summary(console, each, measurement.load, outputs.price_per_hour)
        if measurement.second is not None:
            print_ratios(console, summaries, found)


def _document(
    summaries: Sequence[Summary], found: Sequence[Ratio], measurement: Measurement, price_per_hour: float | None
) -> dict[str, object]:
    """What `--json` holds: everything but the keys."""
    asked = measurement.asked
    costs = [None if price_per_hour is None else cost_per_1000(each, price_per_hour) for each in summaries]
    return {
        "safelight": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load_average": os.getloadavg()[0]},
        "load": asdict(measurement.load),
        "mix": [
            {**asdict(each), "steps": None if each.steps is None else [each.steps[0], each.steps[-1]]}
            for each in asked.shapes
        ],
        "prompts": list(asked.prompts) or "drawn",
        "seed": asked.seed,
        "servers": [
            asdict(each) | {"cost_per_1000_pictures": cost} for each, cost in zip(summaries, costs, strict=True)
        ],
        "ratios": [asdict(each) for each in found],
    }


def _write(path: Path, text: str) -> None:
    if path == Path("-"):
        sys.stdout.write(text)
        sys.stdout.flush()  # a pipe that nobody reads is told here, and not in a traceback at the end
    else:
        write_whole(path, text.encode())
