"""How many replicas there should be: as many as keep their places as full as is wanted; more at once, fewer later.

Nobody has to agree with anybody: each gateway counts what runs in the replicas, whoever asked for it, and what waits at
its own door, and holds on to as many replicas as that needs. A replica that no gateway holds on to ends.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

SHRINK_AFTER_S = 60.0
"""Fewer replicas have to be enough for so long: loading a model again costs more than keeping it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The bounds, and how full the places between them should be."""

    min_replicas: int
    max_replicas: int
    target_utilization: float = 0.7
    interval_s: float = 1.0
    shrink_after_s: float = SHRINK_AFTER_S

    def wanted(self, *, demand: int, places_each: int) -> int:
        """Replicas for so many requests that run or wait."""
        needed = math.ceil(demand / (places_each * self.target_utilization))
        return min(max(needed, self.min_replicas), self.max_replicas)


@runtime_checkable
class ScalableReplicas(Protocol):
    """Replicas that a backend can start and end while others serve."""

    @property
    def num_running(self) -> int:
        """Requests in all of them, other gateways' too."""

    @property
    def places_each(self) -> int: ...

    def scale(self, num_replicas: int) -> None:
        """Begin to have so many; those that are too many finish what they have."""


class Autoscaler:
    """Looks at the demand again and again, for as long as it runs."""

    def __init__(self, scaling: Scaling, replicas: ScalableReplicas, num_waiting: Callable[[], int]) -> None:
        self._scaling = scaling
        self._replicas = replicas
        self._num_waiting = num_waiting
        self._wanted: deque[tuple[float, int]] = deque()
        """When, and how many: those of the last `shrink_after_s`."""

    async def run(self) -> None:
        while True:
            self._replicas.scale(self._most_wanted(asyncio.get_running_loop().time()))
            await asyncio.sleep(self._scaling.interval_s)

    def _most_wanted(self, now: float) -> int:
        demand = self._replicas.num_running + self._num_waiting()
        self._wanted.append((now, self._scaling.wanted(demand=demand, places_each=self._replicas.places_each)))
        while self._wanted[0][0] < now - self._scaling.shrink_after_s:
            self._wanted.popleft()
        return max(number for _, number in self._wanted)
