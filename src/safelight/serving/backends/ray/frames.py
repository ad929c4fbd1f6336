"""What a gateway and the actor of a replica say to each other, in the frames of `serving.messages`.

Every argument and every answer of an actor's method is text or bytes: Ray pickles them, and nothing of ours is pickled.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

import safelight
from safelight import __version__
from safelight.errors import SafelightError
from safelight.model.revision import hub_id_of
from safelight.serving.backends.protocol import Launch, ReplicaState
from safelight.serving.counters import Counters
from safelight.serving.messages import FRAME_HEAD_BYTES, PROTOCOL_VERSION, Happened, Load, encode_frame, from_wire

PACKAGE = Path(safelight.__file__).parent
VERSION = f"{__version__}/{PROTOCOL_VERSION}"
"""Of Safelight and of its frames: a gateway uses an actor only if both are its own."""


class Source(msgspec.Struct, frozen=True):
    """Where any node finds what lies at a path on this one: in the package, on the hub, or at the same path."""

    path: str
    """Relative: in the package, or in the hub's repository."""
    hub_id: str | None = None
    revision: str = ""


class Sources(msgspec.Struct, frozen=True):
    """Of a model, and of its LoRAs by name."""

    model: Source
    loras: dict[str, Source]


class Found(msgspec.Struct, frozen=True):
    """Where it lies on the node of an actor."""

    folder: str
    loras: dict[str, str]
    """Name -> path of the file."""


class Located(msgspec.Struct, frozen=True):
    """An actor's first answer; this one must stay readable over all versions."""

    version: str
    """As its node has it, whoever created the actor."""
    node: str
    """Its id."""


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor is to serve, all but the folder, which each node has for itself."""

    version: str
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
    """What this gateway alone is told of what the replica did: see `Ledger`."""
    num_elsewhere: int = 0
    """Places that other gateways' requests have."""


ActorMessage = Happened | Status
actor_messages: msgspec.msgpack.Decoder[ActorMessage] = msgspec.msgpack.Decoder(ActorMessage, dec_hook=from_wire)
located_messages: msgspec.msgpack.Decoder[Located] = msgspec.msgpack.Decoder(Located)
found_messages: msgspec.msgpack.Decoder[Found] = msgspec.msgpack.Decoder(Found)
begin_messages: msgspec.msgpack.Decoder[Begin] = msgspec.msgpack.Decoder(Begin, dec_hook=from_wire)


def source_of(path: Path) -> Source:
    """How another node finds what is here: a model's folder, or a file of a repository in the hub's cache."""
    if path.is_relative_to(PACKAGE):
        return Source(str(path.relative_to(PACKAGE)))
    for folder in (path, *path.parents):
        if (hub_id := hub_id_of(folder)) is not None:
            return Source(str(path.relative_to(folder)), hub_id, folder.name)
    return Source(str(path.absolute()))


def sources_of(load: Load) -> Sources:
    """Of all that a replica reads."""
    return Sources(source_of(Path(load.folder)), {each.name: source_of(Path(each.file)) for each in load.spec.loras})


def encode(message: msgspec.Struct) -> bytes:
    """The message of one frame, alone."""
    return bytes(encode_frame(message)[FRAME_HEAD_BYTES:])
