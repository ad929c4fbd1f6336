"""What the dispatcher knows of replicas, wherever they run: what each is doing, and a way to send it a request.

A backend is a module with `create_factory` and a line of `registry.py`. It may tell of its replicas one by one, or of
one with many places; what starts later, or is taken away, comes to `Replicas.members` and goes from it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from safelight.errors import SafelightError
from safelight.model.spec import ModelSpec
from safelight.picture.generation import Event, GenerationRequest
from safelight.serving.counters import Counters
from safelight.serving.messages import Load
from safelight.settings import Settings

LOAD_TIMEOUT_S = 3600.0
MIN_PATIENCE_S = 300.0


class ReplicaState(StrEnum):
    STARTING = "starting"
    """It is being started, or waits to be started again."""
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """Finishes what it has and takes nothing new."""
    FAILED = "failed"
    """Cannot serve; if its backend tries it again, it is this until it is ready. Nobody waits for it."""
    STOPPED = "stopped"
    UNLOADED = "unloaded"
    """Ended because nobody asked for its model; whoever asks next has it started again. Of backends none is this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a backend is to start: what each replica loads, how many there are, and how patient to be with them."""

    name: str = ""
    """Of the deployment, so that two of the same model have replicas of their own; empty for a server's own model."""
    instance_type: str = ""
    """What the deployment asks to run on, in Azure's words."""
    load: Load
    """`options.num_threads` may be None: as many as a replica has cores, where it runs."""
    num_replicas: int = 1
    """As many there are at first; a backend that has `scale` is told later how many there should be."""
    max_concurrent_requests: int = 8
    """What one replica runs at once."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment of the deployment; its replicas see `for_libraries` of it."""
    load_timeout_s: float = LOAD_TIMEOUT_S
    min_patience_s: float = MIN_PATIENCE_S
    """A replica that leaves a message unanswered for longer, and for twice a request's timeout, hangs."""


class Replica(Protocol):
    """One process that owns one device; or several of them, of which their backend chooses one for each request."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> ReplicaState: ...
    @property
    def num_places(self) -> int:
        """How many requests it may run at once, now."""

    @property
    def error(self) -> SafelightError | None:
        """Why it ended the last time, or cannot be started."""

    @property
    def last_words(self) -> str:
        """The end of what it wrote to its log, if it ended unforeseen; may hold secrets."""

    @property
    def plan(self) -> str:
        """How its model lies in memory, in one line; empty until it is known."""

    @property
    def picture_s(self) -> float | None:
        """Seconds that the steps of the default picture may take; None: next to nothing, or not known yet."""

    @property
    def whereabouts(self) -> Mapping[str, str | int]:
        """Where it runs, in the words of its backend, for whoever looks after it."""

    @property
    def restarts(self) -> int:
        """As far as this gateway has seen."""

    def stream(self, request: GenerationRequest, *, age_s: float) -> AsyncGenerator[Event, None]:
        """The events of a request, up to Completed or Failed. Closing the generator early cancels the request.

        Raises ReplicaLost or Overloaded at once if it cannot be sent.
        """


class Replicas(Protocol):
    """All that serve one model in one backend. Whoever drains lets them finish first, and stops them then."""

    on_change: Callable[[], None]
    """Called after every change of a state, a plan, a number of places, or of the members."""

    @property
    def spec(self) -> ModelSpec:
        """What the model can do; that of the launch until a replica is ready and knows better."""

    @property
    def members(self) -> Sequence[Replica]:
        """Never empty: one that is still to come is there as STARTING."""

    @property
    def counters(self) -> Counters:
        """Totals over all that there ever were, and all their lives: they only grow.

        Of replicas that other gateways use too, what no other gateway is told: the sum over all gateways is the truth.
        """

    async def start(self) -> None:
        """Begin to start them, without waiting until they are ready. After `stop` they start anew."""

    async def stop(self) -> None:
        """End them now; their requests fail with GenerationCancelled."""


ReplicasFactory = Callable[[Launch], Replicas]
"""How deployments and `serve` make replicas."""
CreateFactory = Callable[[Settings], ReplicasFactory]
