"""What a run comes to, as tables for people; and the progress while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from safelight.cli.bench.load import Load, Run
from safelight.cli.bench.summary import Latency, Ratio, Summary, percentile
from safelight.cli.output import printable

BUSY_SHARE = 0.7
LATE_S = 0.05
FEW = 100
_REFRESH_S = 0.5
_SHOWN_ERRORS = 10
_RECENT = 200


@asynccontextmanager
async def shown_progress(console: Console, run: Run, title: str) -> AsyncIterator[None]:
    """On a terminal a bar with what has come so far; elsewhere nothing."""
    if not console.is_terminal:
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[so_far]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=1.0, so_far="")
        refreshing = asyncio.create_task(_refresh(progress, task, run))
        try:
            yield
        finally:
            refreshing.cancel()


def print_summary(console: Console, summary: Summary, load: Load, price_per_hour: float | None) -> None:
    """Of one server."""
    console.print(f"\n{summary.url} ({summary.api}), {_told_load(load)}", markup=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _figures(summary, price_per_hour):
        table.add_row(name, value)
    console.print(table, markup=False)
    if summary.latency_s is not None:
        console.print(_latencies(summary), markup=False)
    _print_errors(console, summary, load)
    for warning in warnings(summary):
        console.print(f"Note: {warning}", markup=False)


def print_ratios(console: Console, summaries: Sequence[Summary], ratios: Sequence[Ratio]) -> None:
    """Of two servers, if there is a round in which both made pictures."""
    if not ratios:
        console.print("\nNo ratio: in no whole round did both servers make pictures", markup=False)
        return
    table = Table("first / second", "median", "least", "most", "rounds", box=None, pad_edge=False)
    for each in ratios:
        table.add_row(each.what, *(_figure(value) for value in (each.median, each.low, each.high)), str(each.rounds))
    first, second = summaries
    console.print(f"\nfirst: {first.url}\nsecond: {second.url}", markup=False)
    console.print(table, markup=False)


def warnings(summary: Summary) -> list[str]:
    """Why the figures may not be what they look like."""
    told = []
    if summary.is_stopped:
        told.append(f"stopped after {summary.seconds:.1f} s; {summary.unfinished} requests had no answer yet")
    if summary.generator_cpu_share > BUSY_SHARE:
        told.append(
            f"this command took {summary.generator_cpu_share:.0%} of a core: the figures are rather its own than the "
            "server's; run it on another machine, or ask for less"
        )
    if summary.generator_p99_lateness_s > LATE_S:
        told.append(f"1 % of the requests were sent {summary.generator_p99_lateness_s:.2f} s late, which is counted")
    if 0 < summary.pictures < FEW:
        told.append(f"of {summary.pictures} pictures p99 is little more than the slowest; a longer run tells more")
    return told


def cost_per_1000(summary: Summary, price_per_hour: float) -> float | None:
    """In the currency of the price; None: there was no picture."""
    return 1_000 * price_per_hour / summary.pictures_per_hour if summary.pictures_per_hour else None


def _told_load(load: Load) -> str:
    clients = "1 client" if load.clients == 1 else f"{load.clients} clients"
    who = clients if load.rate is None else f"{load.rate:g} requests a second (Poisson)"
    span = f"{load.duration_s:g} s" if load.requests is None else f"{load.requests} requests"
    return f"{who}, {span} after {load.warm_up_s:g} s of warm-up"


def _figures(summary: Summary, price_per_hour: float | None) -> list[tuple[str, str]]:
    figures = [
        ("pictures", f"{summary.pictures} in {summary.seconds:.1f} s"),
        ("pictures a second", _figure(summary.pictures_per_second)),
        ("pictures an hour", _figure(summary.pictures_per_hour)),
        ("requests that failed", str(summary.errors)),
    ]
    if price_per_hour is not None:
        cost = cost_per_1000(summary, price_per_hour)
        figures.append(("cost of 1,000 pictures", "no picture" if cost is None else _figure(cost)))
    return [*figures, ("this command's CPU", f"{summary.generator_cpu_share:.0%} of a core")]


def _latencies(summary: Summary) -> Table:
    table = Table("seconds", "mean", "p50", "p95", "p99", "slowest", "pictures", "failed", box=None, pad_edge=False)
    shapes = summary.shapes if len(summary.shapes) > 1 else ()
    for each in shapes:
        if each.latency_s is not None:
            table.add_row(each.shape, *_cells(each.latency_s), str(each.pictures), str(each.errors))
    if summary.latency_s is not None:
        made = sum(each.pictures for each in summary.shapes)
        table.add_row("all", *_cells(summary.latency_s), str(made), str(summary.errors))
    return table


def _cells(latency: Latency) -> list[str]:
    values = (latency.mean, latency.p50, latency.p95, latency.p99, latency.max)
    return [f"{value:.3f}" if value >= 0.1 else _figure(value) for value in values]


def _figure(value: float) -> str:
    """With the three digits that count, however large or small it is."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def _print_errors(console: Console, summary: Summary, load: Load) -> None:
    if not summary.error_kinds:
        return
    table = Table("failed", "times", Column("said", overflow="fold"), box=None, pad_edge=False)
    for each in summary.error_kinds[:_SHOWN_ERRORS]:
        table.add_row(each.status, str(each.count), printable(each.message))
    console.print(table, markup=False)
    left = len(summary.error_kinds) - _SHOWN_ERRORS
    if left > 0:
        console.print(f"and {left} other ways, which --json tells", markup=False)
    if summary.told_to_come_back:
        waited = "clients waited so long" if load.honours_retry_after else "clients asked on"
        waited = waited if load.rate is None else "in an open loop nobody waits"
        console.print(f"{summary.told_to_come_back} were told when to come back (Retry-After); {waited}", markup=False)


async def _refresh(progress: Progress, task: int, run: Run) -> None:
    while True:
        progress.update(task, completed=_share(run), so_far=_so_far(run))  # type: ignore[arg-type]
        await asyncio.sleep(_REFRESH_S)


def _share(run: Run) -> float:
    if run.load.requests is not None:
        return min(1.0, (run.num_made + run.num_failed) / run.load.requests)
    now, began_at = perf_counter(), run.counts_from - run.load.warm_up_s
    return min(1.0, (now - began_at) / max(run.counts_to - began_at, 1e-9))


def _so_far(run: Run) -> str:
    seconds = perf_counter() - run.counts_from
    if seconds <= 0:
        return "warming up"
    recent = [each.latency_s for each in run.samples[-_RECENT:] if each.error is None]
    latency = f", p50 {percentile(recent, 50):.2f} s" if recent else ""
    failed = f", {run.num_failed} failed" if run.num_failed else ""
    return f"{run.num_made} pictures, {run.num_made / seconds:.2f}/s{latency}{failed}"
