from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight import errors
from safelight.errors import InvalidRequest, NonFiniteValues, Overloaded, ProtocolViolation
from safelight.picture.generation import (
    Completed,
    Failed,
    GeneratedImage,
    GenerationResult,
    ImageCompleted,
    Preview,
    Step,
    Timings,
)
from safelight.serving.backends.line import Line
from safelight.serving.backends.ray import frames
from safelight.serving.counters import Counters, StageTime
from safelight.serving.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Cancel,
    GatewayMessage,
    Happened,
    Hello,
    Load,
    LoadFailed,
    Ready,
    ReplicaMessage,
    Stats,
    Submit,
    WireError,
    encode_frame,
    gateway_messages,
    receive_message,
)
from safelight.settings import EngineOptions
from tests.fakes import FAKE_SPEC, fake_request
from tests.shapes import shape_of

REQUEST = fake_request("blåbär \N{GRAPES}", negative_prompt="", seed=2**62, warnings=("w",), num_images_per_prompt=2)
RESULT = GenerationResult(
    images=(GeneratedImage(content=b"\x89PNG", seed=1), GeneratedImage(content=b"", seed=2)),
    warnings=("w", "x"),
    timings=Timings(queue_s=0.5, total_s=1.5),
    num_text_tokens=3,
)
COUNTERS = Counters(transformer_calls=3, batch_sizes={1: 2, 8: 1}, stages={"queue": StageTime(2, 0.5)})


def test_whoever_changes_a_message_changes_the_version() -> None:
    """By it alone two versions know that they do not understand each other: put down both anew."""
    of_ray = (frames.ActorMessage, frames.Located, frames.Begin, frames.Found)

    assert (PROTOCOL_VERSION, shape_of([GatewayMessage, ReplicaMessage, WireError, *of_ray])) == (10, "3f2e969cacb5")


OPTIONS = EngineOptions(
    device="cpu", dtype="float16", num_threads=3, max_batch_size=5, prompt_cache_bytes=1, lora_cache_bytes=2
)


@pytest.mark.parametrize(
    "message",
    [Load(folder="/models/a b", spec=FAKE_SPEC, options=OPTIONS), Submit(1, REQUEST, 0.25), Cancel(7)],
)
def test_the_replica_reads_what_the_gateway_wrote(message: GatewayMessage) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode_frame(message))

        assert receive_message(theirs.makefile("rb"), gateway_messages) == message


@pytest.mark.parametrize(
    "message",
    [
        Hello(3),
        Ready(),
        Happened(1, Step(0, 2, 4)),
        Happened(1, Preview(0, 1, b"\x89PNG")),
        Happened(1, ImageCompleted(2, GeneratedImage(content=b"\x89PNG", seed=3), ("w",), 5)),
        Happened(1, Completed(RESULT)),
        Stats(COUNTERS),
    ],
)
def test_the_gateway_reads_what_the_replica_wrote(message: ReplicaMessage) -> None:
    assert read_bytes(encode_frame(message)) == message


@pytest.mark.parametrize("name", [name for name in vars(errors) if name[0].isupper()])
def test_every_error_comes_back_as_the_same_class(name: str) -> None:
    error_class = getattr(errors, name)

    returned = sent_over(error_class("what and why"))

    assert type(returned) is error_class
    assert returned.message == "what and why"


def test_an_error_keeps_its_field_and_its_retry_after() -> None:
    refused = sent_over(InvalidRequest("too wide", field="width"))
    overloaded = sent_over(Overloaded("full", retry_after_s=42))

    assert isinstance(refused, InvalidRequest)
    assert refused.field == "width"
    assert isinstance(overloaded, Overloaded)
    assert overloaded.retry_after_s == 42


def test_an_error_class_of_another_version_becomes_an_engine_failure() -> None:
    class Unheard(NonFiniteValues):
        pass

    assert type(sent_over(Unheard("odd"))) is errors.EngineFailure


def test_why_a_model_cannot_be_loaded_comes_back() -> None:
    message = read_bytes(encode_frame(LoadFailed(errors.UnsupportedModel("a FluxFillPipeline"))))

    assert isinstance(message, LoadFailed)
    assert type(message.error) is errors.UnsupportedModel
    assert message.error.message == "a FluxFillPipeline"


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolViolation, match="limit"):
        read_bytes(struct.pack(">I", MAX_FRAME_BYTES + 1) + b"x")


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x80", b"\x81\xa4type\xa6Shells", encode_frame(Cancel(1))[4:]])
def test_a_frame_that_makes_no_sense_is_a_protocol_violation(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read_bytes(struct.pack(">I", len(payload)) + payload)


@given(st.binary(max_size=64))
def test_no_bytes_get_past_the_decoder_but_messages(payload: bytes) -> None:
    with suppress(ProtocolViolation):
        assert isinstance(read_bytes(struct.pack(">I", len(payload)) + payload), ReplicaMessage)


@pytest.mark.parametrize("length", [0, 2, 5])
def test_a_connection_that_ends_inside_a_frame_is_the_end(length: int) -> None:
    frame = encode_frame(Hello(1))[:length]

    with pytest.raises(EOFError):
        read_bytes(frame)

    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(frame)
        ours.close()
        with pytest.raises(EOFError):
            receive_message(theirs.makefile("rb"), gateway_messages)


def sent_over(error: errors.SafelightError) -> errors.SafelightError:
    message = read_bytes(encode_frame(Happened(1, Failed(error))))
    assert isinstance(message, Happened)
    assert isinstance(message.event, Failed)
    return message.event.error


def read_bytes(content: bytes) -> ReplicaMessage:
    """What the gateway makes of it, when no more comes."""

    async def read() -> ReplicaMessage:
        ours, theirs = socket.socketpair()
        _, line = await asyncio.get_running_loop().create_unix_connection(Line, sock=ours)
        with theirs:
            theirs.sendall(content)
        try:
            return await line.receive()
        finally:
            line.abort()
            await asyncio.sleep(0)

    return asyncio.run(read())
