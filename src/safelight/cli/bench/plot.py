"""A run as a picture: each answer at its moment, and how many were as fast as what."""

from __future__ import annotations

from collections.abc import Sequence

from safelight.cli.bench.chart import Chart, draw
from safelight.cli.bench.load import Run, Sample
from safelight.cli.bench.summary import percentile

MAX_POINTS = 4_000
"""Of each colour; of more, every second or third is shown."""
_PERCENTS = (*range(99), *(99 + tenth / 10 for tenth in range(11)))
FAILED = "failed"


def plot_run(runs: Sequence[Run]) -> str:
    """An SVG document: the first run of each server over time, and all of a server together in the distribution."""
    by_server = _by_server(runs)
    over_time = [
        Chart(
            title=f"Each request to {url}",
            x="seconds from the start of the run",
            y="seconds until its answer",
            lines=_over_time(same[0]),
            is_scatter=True,
        )
        for url, same in by_server.items()
    ]
    distribution = Chart(
        title="How many were answered as fast as this",
        x="percent of the pictures",
        y="seconds until the answer, at most",
        lines={url: _distribution([each for run in same for each in run.counted]) for url, same in by_server.items()},
    )
    return draw([*over_time, distribution])


def _by_server(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """By their names; two of one name, which may differ in their keys, are told apart by their order."""
    same: dict[int, list[Run]] = {}
    for run in runs:
        same.setdefault(id(run.target), []).append(run)
    names = [f"{of_one[0].target.shown} ({of_one[0].target.api})" for of_one in same.values()]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return dict(zip(names, same.values(), strict=True))


def _over_time(run: Run) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for each in run.counted:
        name = each.shape.name if each.error is None else FAILED
        lines.setdefault(name, []).append((max(0.0, each.due_at - run.counts_from), each.latency_s))
    return {name: points[:: len(points) // MAX_POINTS + 1] for name, points in sorted(lines.items())}


def _distribution(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    values = sorted(each.latency_s for each in samples if each.error is None)
    return [(percent, percentile(values, percent)) for percent in _PERCENTS] if values else []
