"""How long replicas take for the same work, beside each other: a slow one is given less of it, and health says so.

A node may be hot, shared with others, or of another make. What its replica has of requests is as slow as it is; what
matters is that no request waits for it that another replica would have made meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from safelight.serving.backends.protocol import Replica

SLOW = 3.0
"""Times as long as the quickest. Less than that is what other requests in the same batch may do."""
MOST_KEPT = 9
FEWEST = 3
"""Requests of which the median is taken: the first one after a start is slow everywhere."""
KNOWN_FOR_S = 120.0
"""A replica that was slow before that is tried again."""
LOOK_AGAIN_S = 0.5


class Paces:
    """Seconds for a unit of work, whatever that is, of the replicas that there are."""

    def __init__(self, replicas: Callable[[], Sequence[Replica]], now: Callable[[], float] = time.monotonic) -> None:
        self._replicas = replicas
        self._now = now
        self._seen: dict[Replica, deque[tuple[float, float]]] = {}
        """When, and seconds for a unit."""
        self._slow: Mapping[Replica, float] = {}
        self._look_at = now()

    def observe(self, replica: Replica, seconds: float, work: float) -> None:
        """A replica has done so much work."""
        now = self._now()
        self._seen.setdefault(replica, deque(maxlen=MOST_KEPT)).append((now, seconds / work))
        if now >= self._look_at:
            self._look_at = now + LOOK_AGAIN_S
            self._look(now)

    def slowness(self, replica: Replica) -> float:
        """How many times as long as the quickest one it takes, if it is slow; else 1."""
        return self._slow.get(replica, 1.0)

    def _look(self, now: float) -> None:
        self._seen = {each: self._seen[each] for each in self._replicas() if each in self._seen}
        paces = {each: median(kept) for each in self._seen if len(kept := self._recent(each, now)) >= FEWEST}
        quickest = min(paces.values(), default=0.0)
        self._slow = {each: pace / quickest for each, pace in paces.items() if pace >= SLOW * quickest > 0}

    def _recent(self, replica: Replica, now: float) -> list[float]:
        return [pace for at, pace in self._seen[replica] if now - at < KNOWN_FOR_S]
