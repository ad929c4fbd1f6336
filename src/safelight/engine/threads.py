"""How many of the process's CPU threads a stage takes: all, or half of them, with the same result bit for bit.

Waiting threads sleep in a server (`serving/backends/child_environment.py`), and to be woken may take as long as one of
a small model's operations: there half of the threads can be as fast, and leave a core to whoever can use it.
docs/decisions/0045-steps-take-the-threads-that-pay.md has the figures.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

MIN_SEEN = 5
"""Runs with a number of threads before it is believed; so many of the last are kept."""
TRY_AGAIN_AFTER = 50
"""Runs; the next one takes what was slower, in case that it is not so any more."""

Work = Callable[[], Tensor]
WorkKey = Hashable
"""What of the work makes it another one: its shapes."""


class Threads:
    """Of one process."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.num_all = torch.get_num_threads()
        self.num_half = max(1, self.num_all // 2)
        self._makes_the_same: dict[WorkKey, bool] = {}
        """Whether this machine was seen to make the same bits with half of the threads."""
        self._seconds: dict[tuple[WorkKey, int], deque[float]] = {}
        self._num_runs: dict[WorkKey, int] = {}

    def with_all(self, work: Work) -> Tensor:
        return self._run(self.num_all, work)

    def with_half(self, key: WorkKey, work: Work) -> Tensor:
        """Or with all, where half would make something else. The first of its kind is made both ways."""
        if key not in self._makes_the_same:
            return self._compare(key, work)
        return self._run(self.num_half if self._makes_the_same[key] else self.num_all, work)

    def with_what_is_faster(self, key: WorkKey, work: Work) -> Tensor:
        """As was learned from the work before; the least of the last times counts, since others only ever add."""
        if key not in self._makes_the_same:
            return self._compare(key, work)
        if self.num_half == self.num_all or not self._makes_the_same[key]:
            return self.with_all(work)
        num_threads, began_at = self._choose(key), self._clock()
        done = self._run(num_threads, work)
        seconds = self._clock() - began_at
        self._seconds.setdefault((key, num_threads), deque(maxlen=MIN_SEEN)).append(seconds)
        return done

    def _choose(self, key: WorkKey) -> int:
        seen = {count: self._seconds.get((key, count), ()) for count in (self.num_half, self.num_all)}
        few = [count for count, times in seen.items() if len(times) < MIN_SEEN]
        if few:
            return min(few, key=lambda count: len(seen[count]))
        faster, slower = sorted(seen, key=lambda count: min(seen[count]))
        self._num_runs[key] = (self._num_runs.get(key, 0) + 1) % TRY_AGAIN_AFTER
        return faster if self._num_runs[key] else slower

    def _compare(self, key: WorkKey, work: Work) -> Tensor:
        if self.num_half == self.num_all:
            self._makes_the_same[key] = True
            return work()
        done = self.with_all(work)
        self._makes_the_same[key] = torch.equal(self._run(self.num_half, work), done)
        return done

    def _run(self, num_threads: int, work: Work) -> Tensor:
        torch.set_num_threads(num_threads)  # of the calling thread alone
        try:
            return work()
        finally:
            torch.set_num_threads(self.num_all)
