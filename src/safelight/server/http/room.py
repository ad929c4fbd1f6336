"""The connections that are open, and which of them goes when there is no room for another.

A connection is noted whenever it waits for something else than before, so that nobody has to look through all of them:
whoever floods the door pays more for each connection than it costs here.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import Protocol

MAX_UNHEARD = 32
"""Looked at for each newcomer: those who came just before it, mostly."""
RANK_INTERVAL_S = 0.25
"""Looking for slow clients takes a look at all, so it is not done more often."""


class Occupant(Protocol):
    """What `ClientConnection` is to its room."""

    @property
    def has_request(self) -> bool:
        """Whether its request, or the answer, is in progress."""
        ...

    @property
    def is_unheard(self) -> bool:
        """Whether it has sent something that nobody has had the time to read."""
        ...

    def look(self, now: float) -> float:
        """Since when it waits for what it waits for now; notes it if that is something else than before."""
        ...

    def rank(self, now: float) -> tuple[bool, float, float] | None:
        """How little it would be missed, the lowest first; None if it may not go."""
        ...


class Room(set[Occupant]):
    """uvicorn's set of connections, which knows who of them has a request."""

    def __init__(self) -> None:
        super().__init__()
        self._silent: OrderedDict[Occupant, None] = OrderedDict()
        """Those without a request, the one that has been so for longest first."""
        self._slow: deque[Occupant] = deque()
        """Those whose request waits for a client that does next to nothing, as they were when they were ranked."""
        self._ranked_at = -math.inf

    @property
    def num_requests(self) -> int:
        return len(self) - len(self._silent)

    def discard(self, each: object) -> None:
        super().discard(each)
        self._silent.pop(each, None)  # type: ignore[call-overload]

    def note(self, each: Occupant) -> None:
        """From now on it waits for something else."""
        self._silent.pop(each, None)
        if each in self and not each.has_request:
            self._silent[each] = None

    def least_missed(self, now: float) -> Occupant | None:
        """Who is to go for a newcomer; None if all have requests that are getting on."""
        for _ in range(min(MAX_UNHEARD, len(self._silent))):
            each = next(iter(self._silent))
            if not each.is_unheard:
                return each
            self._silent.move_to_end(each)
        return self.slowest(now)

    def slowest(self, now: float) -> Occupant | None:
        """Who of those with a request may go for another request, if any may."""
        if not self._slow:
            self._rank(now)
        while self._slow:
            each = self._slow.popleft()
            if each in self and each.rank(now) is not None:  # it may have got on since
                return each
        return None

    def _rank(self, now: float) -> None:
        if now - self._ranked_at < RANK_INTERVAL_S:
            return
        self._ranked_at = now
        for each in list(self):
            each.look(now)  # nobody tells when the last of an answer was taken
        ranks = [(rank, each) for each in self if (rank := each.rank(now)) is not None]
        self._slow.extend(each for _, each in sorted(ranks, key=lambda ranked: ranked[0]))
