"""How many rows of a size take a step together: as many as are allowed, unless that was seen to be slower by the row.

What a step costs is learned while it serves, which costs a start nothing and is right for this device, this size and
this load. The least of the last times of each number of rows counts: other work on the machine only ever adds.
"""

from __future__ import annotations

from collections import deque

MIN_SEEN = 5
"""Steps of a number of rows before they are believed; so many of the last are kept."""
TOLERANCE = 1.05
TRY_AGAIN_AFTER = 50
"""Batches that were cut; the next one is whole, in case that what was seen is not so any more."""

BatchKey = tuple[int, ...]


class StepCosts:
    """Of one replica."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._seconds: dict[BatchKey, dict[int, deque[float]]] = {}
        self._num_cut: dict[BatchKey, int] = {}

    def observe(self, key: BatchKey, rows: int, seconds: float) -> None:
        self._seconds.setdefault(key, {}).setdefault(rows, deque(maxlen=MIN_SEEN)).append(seconds)

    def cap(self, key: BatchKey) -> int:
        """Rows of the next batch of this size, at most."""
        best = self._best(key)
        if best == self._max_rows:
            return best
        self._num_cut[key] = (self._num_cut.get(key, 0) + 1) % TRY_AGAIN_AFTER
        return best if self._num_cut[key] else self._max_rows

    def _best(self, key: BatchKey) -> int:
        """The most rows that are not dearer by the row than fewer are. Numbers that were not seen yet are tried."""
        costs = {
            rows: min(times) / rows for rows, times in self._seconds.get(key, {}).items() if len(times) == MIN_SEEN
        }
        cheapest = min(costs.values(), default=0.0)
        good = [rows for rows, cost in costs.items() if cost <= cheapest * TOLERANCE]
        is_worse_above = any(rows > max(good) for rows in costs) if good else False
        return max(good) if is_worse_above else self._max_rows
