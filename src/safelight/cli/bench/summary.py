"""What came of a run, in figures: percentiles, throughput, and what went wrong. It is what `--json` writes."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safelight.cli.bench.load import Run, Sample

MAX_MESSAGES = 100
"""Different words of one status that are told apart: a server may put a new number into each."""
_OTHERS = "other words, each its own"


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the moment at which a request was due to the end of its answer; pictures only."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class ShapeSummary:
    """Of the requests of one size and number of steps."""

    shape: str
    pictures: int
    errors: int
    latency_s: Latency | None
    """None: there was no picture."""


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """One way in which requests failed."""

    status: str
    """An HTTP status, or a word where no answer came."""
    message: str
    count: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one server."""

    url: str
    api: str
    seconds: float
    pictures: int
    """Finished in that time."""
    errors: int
    unfinished: int
    pictures_per_second: float
    pictures_per_hour: float
    latency_s: Latency | None
    shapes: tuple[ShapeSummary, ...]
    error_kinds: tuple[ErrorSummary, ...]
    told_to_come_back: int
    """Refusals with a Retry-After."""
    generator_cpu_share: float
    generator_p99_lateness_s: float
    """How much later than due requests were sent, in an open loop."""
    is_stopped: bool


def summarize(runs: Sequence[Run]) -> Summary:
    """Of runs against one server.

    Latencies and errors are of the requests that were due while it counted; pictures, of those finished in it.
    """
    target, counted = runs[0].target, [each for run in runs for each in run.counted]
    seconds = sum(run.seconds for run in runs)
    num_made = sum(_num_made(run) for run in runs)
    rate = num_made / seconds if seconds > 0 else 0.0
    lateness = [each.sent_at - each.due_at for each in counted]
    return Summary(
        url=target.shown,
        api=target.api,
        seconds=seconds,
        pictures=num_made,
        errors=_num_errors(counted),
        unfinished=sum(run.num_unfinished for run in runs),
        pictures_per_second=rate,
        pictures_per_hour=3_600 * rate,
        latency_s=_latency(counted),
        shapes=tuple(_shapes(counted)),
        error_kinds=tuple(_errors(counted)),
        told_to_come_back=sum(each.retry_after_s is not None for each in counted),
        generator_cpu_share=max(run.cpu_share for run in runs),
        generator_p99_lateness_s=percentile(lateness, 99) if lateness and runs[0].load.rate is not None else 0.0,
        is_stopped=any(run.is_stopped for run in runs),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all are not above (nearest rank): always one that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _num_made(run: Run) -> int:
    return sum(each.error is None and run.counts_from <= each.done_at <= run.counts_to for each in run.samples)


def _latency(samples: Sequence[Sample]) -> Latency | None:
    values = [each.latency_s for each in samples if each.error is None]
    if not values:
        return None
    p50, p95, p99 = (percentile(values, percent) for percent in (50, 95, 99))
    return Latency(sum(values) / len(values), p50, p95, p99, max(values))


def _shapes(samples: Sequence[Sample]) -> list[ShapeSummary]:
    by_name: dict[str, list[Sample]] = {}
    for each in samples:
        by_name.setdefault(each.shape.name, []).append(each)
    return [
        ShapeSummary(name, sum(each.error is None for each in same), _num_errors(same), _latency(same))
        for name, same in sorted(by_name.items())
    ]


def _num_errors(samples: Sequence[Sample]) -> int:
    return sum(each.error is not None for each in samples)


def _errors(samples: Sequence[Sample]) -> list[ErrorSummary]:
    counts: Counter[tuple[str, str]] = Counter()
    for each in samples:
        if each.error is not None:
            key = (each.error, each.message)
            is_new = key not in counts and len(counts) >= MAX_MESSAGES
            counts[(each.error, _OTHERS) if is_new else key] += 1
    return [ErrorSummary(status, message, count) for (status, message), count in counts.most_common()]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of the first server to the second: the median of the rounds, and their least and most.

    Other work slows two servers in turns alike, so a ratio holds where figures do not.
    """

    what: str
    median: float
    low: float
    high: float
    rounds: int


_OF_LATENCY: tuple[tuple[str, Callable[[Latency], float]], ...] = (
    ("p50", lambda latency: latency.p50),
    ("p95", lambda latency: latency.p95),
    ("p99", lambda latency: latency.p99),
)


def ratios(rounds: Sequence[tuple[Summary, Summary]]) -> list[Ratio]:
    """Of throughput and of latencies; a round in which a server made no picture, or that was cut off, has none."""
    rounds = [each for each in rounds if all(one.pictures and not one.is_stopped for one in each)]
    throughput = [first.pictures_per_second / second.pictures_per_second for first, second in rounds]
    both = [(one.latency_s, two.latency_s) for one, two in rounds if one.latency_s and two.latency_s]
    latencies = [(name, [of(one) / of(two) for one, two in both]) for name, of in _OF_LATENCY]
    return [_ratio(name, values) for name, values in (("pictures a second", throughput), *latencies) if values]


def _ratio(what: str, values: Sequence[float]) -> Ratio:
    return Ratio(what, statistics.median(values), min(values), max(values), len(values))
