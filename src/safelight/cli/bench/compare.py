"""Two servers in turns, and their ratios: other work slows both alike, so a ratio holds where figures do not."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safelight.cli.bench.summary import Latency, Summary


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of the first server to the second: the median of the rounds, and their least and most."""

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
    """Of throughput and of latencies; a round in which a server made no picture has none."""
    throughput = [
        first.pictures_per_second / second.pictures_per_second for first, second in rounds if second.pictures_per_second
    ]
    both = [(one.latency_s, two.latency_s) for one, two in rounds if one.latency_s and two.latency_s]
    latencies = [(name, [of(one) / of(two) for one, two in both]) for name, of in _OF_LATENCY]
    return [_ratio(name, values) for name, values in (("pictures a second", throughput), *latencies) if values]


def _ratio(what: str, values: Sequence[float]) -> Ratio:
    return Ratio(what, statistics.median(values), min(values), max(values), len(values))
