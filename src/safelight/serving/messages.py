"""The frames between the gateway and a replica: typed, versioned msgpack over a socket pair that only the two hold.

A frame is four bytes of length (big-endian) and one message. The replica speaks first, with `Hello`; the gateway
answers with `Load`, and after `Ready` sends `Submit` and `Cancel`. A `ticket` names a request while it is in flight.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, TypeVar

import msgspec

from safelight import errors
from safelight.errors import EngineFailure, InvalidRequest, ProtocolViolation, SafelightError
from safelight.model.spec import ModelSpec
from safelight.picture.content_credentials import ContentCredentials
from safelight.picture.generation import Event, GenerationRequest
from safelight.serving.counters import Counters
from safelight.settings import EngineOptions
from safelight.telemetry.log_lines import LogFormat

PROTOCOL_VERSION = 10
"""Of the messages here, and of what backends say beside them: another one for each change, as a test sees to."""
MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH = struct.Struct(">I")
FRAME_HEAD_BYTES = _LENGTH.size


class Load(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Load a model and say `Ready` or `LoadFailed`."""

    folder: str
    spec: ModelSpec
    options: EngineOptions
    private_prompts: bool = False
    credentials: ContentCredentials | None = None
    """Who signs the pictures."""
    log_format: LogFormat = "text"


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Make the images of a request."""

    ticket: int
    request: GenerationRequest
    age_s: float
    """Since the request arrived: its timeout counts from there, and the two processes share no clock."""


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for this request any more: drop it before the next transformer call. Answered by Stats."""

    ticket: int


class WireError(msgspec.Struct, frozen=True):
    """A SafelightError on its way."""

    kind: str
    message: str
    field: str | None = None
    retry_after_s: int | None = None


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The replica's first frame; this one must stay readable over all versions."""

    version: int


class Planned(msgspec.Struct, frozen=True, tag=True):
    """How the model is about to be loaded, in one line; the options of the next smaller plan, or an empty text."""

    plan: str
    smaller: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded."""

    picture_s: float | None = None
    """Seconds that the steps of its default picture may take; None: next to nothing."""


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """The model cannot be loaded; the replica ends."""

    error: SafelightError


class Happened(msgspec.Struct, frozen=True, tag=True):
    """An event of a request, as the gateway passes it on; Completed and Failed are the last."""

    ticket: int
    event: Event


class Stats(msgspec.Struct, frozen=True, tag=True):
    """The replica's totals since it started; sent before whatever message they explain."""

    counters: Counters


GatewayMessage = Load | Submit | Cancel
ReplicaMessage = Hello | Planned | Ready | LoadFailed | Happened | Stats
M = TypeVar("M")

_error_classes: dict[str, type[SafelightError]] = {
    name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, SafelightError)
}


def encode_frame(message: msgspec.Struct) -> bytearray:
    """One frame: of a GatewayMessage, a ReplicaMessage, or what a backend says beside them."""
    frame = bytearray(FRAME_HEAD_BYTES)
    _encoder.encode_into(message, frame, FRAME_HEAD_BYTES)
    length = len(frame) - FRAME_HEAD_BYTES
    assert length <= MAX_FRAME_BYTES, length
    _LENGTH.pack_into(frame, 0, length)
    return frame


def frame_length(received: bytes | memoryview) -> int:
    """Of the frame that begins so, with its head, or of the head if that is not all there. Raises ProtocolViolation."""
    if len(received) < FRAME_HEAD_BYTES:
        return FRAME_HEAD_BYTES
    length = int(_LENGTH.unpack_from(received)[0])
    if length > MAX_FRAME_BYTES:
        raise ProtocolViolation(
            f"a frame of {length} bytes came from a replica's socket; {MAX_FRAME_BYTES} is the limit"
        )
    return FRAME_HEAD_BYTES + length


def decode_message(payload: bytes | bytearray | memoryview, decoder: msgspec.msgpack.Decoder[M]) -> M:
    """The message of a frame without its head, which holds no part of `payload`. Raises ProtocolViolation."""
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, SafelightError) as error:
        raise ProtocolViolation(f"a frame that makes no sense came from a replica's socket: {error}") from None


def split_frames(frames: bytes, decoder: msgspec.msgpack.Decoder[M]) -> list[M]:
    """The messages of whole frames, one after another. Raises ProtocolViolation."""
    messages, view = [], memoryview(frames)
    while view:
        end = frame_length(view)
        messages.append(decode_message(view[FRAME_HEAD_BYTES:end], decoder))
        view = view[end:]
    return messages


def receive_message(received: BinaryIO, decoder: msgspec.msgpack.Decoder[M]) -> M:
    """The next message, blocking. Raises ProtocolViolation, or EOFError when the other side has gone.

    `received` should be buffered: each read of a socket gives up the interpreter lock, which a busy thread may then
    keep for 5 ms, and two reads a message would make a thousand cancelled requests wait for theirs.
    """
    head = _receive_exactly(received, FRAME_HEAD_BYTES)
    return decode_message(_receive_exactly(received, frame_length(head) - FRAME_HEAD_BYTES), decoder)


def _receive_exactly(received: BinaryIO, length: int) -> bytes:
    try:
        content = received.read(length)
    except ConnectionError as error:
        raise EOFError from error
    if len(content) < length:
        raise EOFError
    return content


def _to_wire(value: object) -> WireError | dict[str, Any]:
    if isinstance(value, EngineOptions):
        return value.model_dump()
    assert isinstance(value, SafelightError), type(value)
    return WireError(
        kind=type(value).__name__,
        message=value.message,
        field=value.field if isinstance(value, InvalidRequest) else None,
        retry_after_s=value.retry_after_s if isinstance(value, errors.Overloaded | errors.NotReady) else None,
    )


def from_wire(kind: type, value: object) -> EngineOptions | SafelightError:
    """The hook of every decoder of messages, for the two types that msgspec does not know."""
    return EngineOptions.model_validate(value) if kind is EngineOptions else _error_from_wire(value)


def _error_from_wire(value: object) -> SafelightError:
    """The same error of the same class; a class that this side does not know becomes EngineFailure."""
    error = msgspec.convert(value, WireError)
    error_class = _error_classes.get(error.kind, EngineFailure)
    if issubclass(error_class, InvalidRequest):
        return error_class(error.message, field=error.field)
    if issubclass(error_class, errors.Overloaded | errors.NotReady):
        return error_class(error.message, retry_after_s=error.retry_after_s or 1)
    return error_class(error.message)


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_wire)
gateway_messages: msgspec.msgpack.Decoder[GatewayMessage] = msgspec.msgpack.Decoder(GatewayMessage, dec_hook=from_wire)
replica_messages: msgspec.msgpack.Decoder[ReplicaMessage] = msgspec.msgpack.Decoder(ReplicaMessage, dec_hook=from_wire)
