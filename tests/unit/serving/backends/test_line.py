"""The gateway's end of a replica's socket: frames of any length, in pieces of any length, with few copies."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from safelight.errors import ReplicaLost
from safelight.picture.generation import Completed, GeneratedImage, GenerationResult, Preview, Timings
from safelight.serving.backends.line import READ_BYTES, Line
from safelight.serving.messages import Cancel, Happened, Hello, ReplicaMessage, encode_frame

LARGE = 4_000_000


def preview(index: int, num_bytes: int) -> Happened:
    return Happened(index, Preview(0, index, bytes([index % 251]) * num_bytes))


def picture(num_bytes: int) -> Happened:
    images = (GeneratedImage(content=bytes(num_bytes), seed=1),)
    return Happened(1, Completed(GenerationResult(images=images, warnings=(), timings=Timings())))


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Line, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _, line = await asyncio.get_running_loop().create_unix_connection(Line, sock=ours)
    with theirs:
        yield line, theirs
    line.abort()
    await asyncio.sleep(0)


async def receive_all(line: Line) -> list[ReplicaMessage]:
    messages = []
    try:
        while True:
            messages.append(await line.receive())
    except EOFError:
        return messages


def around_the_buffer() -> list[int]:
    """Lengths of a preview whose frame ends just before, at, and after the end of the buffer."""
    head = len(encode_frame(preview(0, READ_BYTES))) - READ_BYTES
    return [READ_BYTES - head + difference for difference in (-5, -4, -3, -1, 0, 1, 4)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lengths",
    [
        [0] * 5_000,
        [100, READ_BYTES * 3, 0, LARGE, 1, LARGE, READ_BYTES, 7],
        *([length, 3, length, 0] for length in around_the_buffer()),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1 << 20, 65_537, 8_191])
async def test_frames_come_whole_and_in_order_however_long_they_are_and_in_whatever_pieces(
    lengths: Sequence[int], piece_bytes: int
) -> None:
    said = [preview(index, length) for index, length in enumerate(lengths)]
    frames = b"".join(map(encode_frame, said))

    async with connected() as (line, theirs):
        hearing = asyncio.create_task(receive_all(line))
        for start in range(0, len(frames), piece_bytes):
            await asyncio.get_running_loop().sock_sendall(theirs, frames[start : start + piece_bytes])
        theirs.close()

        assert await hearing == said


@pytest.mark.anyio
async def test_frames_that_come_a_byte_at_a_time_are_whole_too() -> None:
    said = [Hello(3), preview(1, 40), preview(2, 0)]

    async with connected() as (line, theirs):
        hearing = asyncio.create_task(receive_all(line))
        for each in b"".join(map(encode_frame, said)):
            await asyncio.get_running_loop().sock_sendall(theirs, bytes([each]))
            await asyncio.sleep(0)
        theirs.close()

        assert await hearing == said


@pytest.mark.anyio
async def test_a_message_stays_what_it_is_when_others_come_after_it() -> None:
    """What is read next lies where it was read from."""
    async with connected() as (line, theirs):
        theirs.sendall(encode_frame(preview(1, 1000)))
        first = await line.receive()
        theirs.sendall(encode_frame(preview(2, 1000)))
        await line.receive()

    assert first == preview(1, 1000)


@pytest.mark.anyio
async def test_a_picture_that_comes_in_is_copied_once() -> None:
    """Into its message, from where the socket has put it: memory holds it twice, and only while it is decoded."""
    frame = encode_frame(picture(LARGE))

    async with connected() as (line, theirs):
        tracemalloc.start()
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(theirs, frame))
        message = await line.receive()
        await sending
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert message == picture(LARGE)
    assert most < 2.2 * LARGE


def test_a_picture_that_goes_out_is_copied_once() -> None:
    message = picture(LARGE)

    tracemalloc.start()
    frame = encode_frame(message)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(frame) > LARGE
    assert most < 1.7 * LARGE  # the frame has room to grow


@pytest.mark.anyio
async def test_what_came_before_the_end_is_heard_before_it() -> None:
    async with connected() as (line, theirs):
        theirs.sendall(encode_frame(Hello(1)) + encode_frame(Hello(2))[:5])
        theirs.close()
        assert await line.receive() == Hello(1)
        with pytest.raises(EOFError):
            await line.receive()


@pytest.mark.anyio
async def test_who_waits_for_one_that_is_given_up_is_told_why() -> None:
    async with connected() as (line, _):
        hearing = asyncio.create_task(line.receive())
        await asyncio.sleep(0)

        line.give_up(ReplicaLost("it is silent"))

        with pytest.raises(ReplicaLost, match="silent"):
            await hearing


@pytest.mark.anyio
async def test_silence_counts_from_the_first_message_that_has_no_answer() -> None:
    async with connected() as (line, theirs):
        assert line.silence_s == 0
        line.send(Cancel(1))
        await asyncio.sleep(0)
        assert line.silence_s > 0

        theirs.sendall(encode_frame(Hello(1)))
        await line.receive()

        assert line.silence_s == 0
