"""What a replica did, shared out among the gateways that use it: each count is told to one of them, and to no other.

So whoever adds up what all gateways tell has the truth, and nobody has to be elected to tell it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from safelight.serving.counters import Counters


@dataclass(slots=True, eq=False)
class Ledger:
    """Of one life of an actor."""

    was_restarted: bool = False
    """Whether a gateway has known an earlier life of the actor: it has died since."""
    _told: Counters = field(default_factory=Counters)

    def untold(self, counters: Counters) -> Counters:
        """What none was told until now; whoever asks tells it from now on."""
        num_restarts = counters.replica_restarts + self.was_restarted
        counters = replace(counters, replica_restarts=num_restarts)
        untold, self._told = counters - self._told, counters
        return untold
