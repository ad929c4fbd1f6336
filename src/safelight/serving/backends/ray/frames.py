"""What a gateway and the actor of a replica say to each other, in the frames of `serving.messages`.

Every argument and every answer of an actor's method is text or bytes: Ray pickles them, and nothing of ours is pickled.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

import safelight
from safelight.errors import SafelightError
from safelight.model.revision import hub_id_of
from safelight.serving.backends.protocol import Launch, ReplicaState
from safelight.serving.counters import Counters
from safelight.serving.messages import Happened, from_wire

PACKAGE = Path(safelight.__file__).parent


class Weights(msgspec.Struct, frozen=True):
    """Where a model's folder is found on any node: in the package, on the hub, or at the same path everywhere."""

    folder: str
    """Relative: in the package. Of a model from the hub, its revision."""
    hub_id: str | None = None


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor is to serve, all but the folder, which each node has for itself."""

    launch: Launch
    command: tuple[str, ...] = ()
    """In place of the one that starts a replica's process."""


class Status(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A replica as its actor sees it; sent before whatever message it explains."""

    state: ReplicaState = ReplicaState.STARTING
    error: SafelightError | None = None
    last_words: str = ""
    plan: str = ""
    picture_s: float | None = None
    pid: int | None = None
    restarts: int = 0
    counters: Counters = Counters()
    num_elsewhere: int = 0
    """Places that other gateways' requests have."""


ActorMessage = Happened | Status
actor_messages: msgspec.msgpack.Decoder[ActorMessage] = msgspec.msgpack.Decoder(ActorMessage, dec_hook=from_wire)
begin_messages: msgspec.msgpack.Decoder[Begin] = msgspec.msgpack.Decoder(Begin, dec_hook=from_wire)


def weights_of(folder: Path) -> Weights:
    """How another node finds what is in this node's folder."""
    if folder.is_relative_to(PACKAGE):
        return Weights(str(folder.relative_to(PACKAGE)))
    hub_id = hub_id_of(folder)
    return Weights(folder.name if hub_id else str(folder.absolute()), hub_id=hub_id)
