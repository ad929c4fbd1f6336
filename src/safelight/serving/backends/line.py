"""The gateway's end of a replica's socket: messages there and back, with a picture copied once on its way in.

What comes is read into one buffer, many short frames at a time. A frame that is longer gets a buffer of its size, which
the socket fills; the message that is decoded from it is the copy.
"""

from __future__ import annotations

import asyncio
from collections import deque

from safelight.errors import ProtocolViolation, SafelightError
from safelight.serving.messages import (
    FRAME_HEAD_BYTES,
    GatewayMessage,
    ReplicaMessage,
    decode_message,
    encode_frame,
    frame_length,
    replica_messages,
)

READ_BYTES = 64 * 1024


class Line(asyncio.BufferedProtocol):
    """To one process. Its reader takes all that has come in one turn of the event loop, so that nothing piles up."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._num_bytes = 0
        self._messages: deque[ReplicaMessage] = deque()
        self._error: Exception | None = None
        """Why no more messages come."""
        self._reader: asyncio.Future[None] | None = None
        self._unanswered_since: float | None = None

    @property
    def num_unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def silence_s(self) -> float:
        """How long a message has been unanswered; a replica that was asked nothing may be silent."""
        return 0.0 if self._unanswered_since is None else self._loop.time() - self._unanswered_since

    def send(self, message: GatewayMessage) -> None:
        """Without waiting; whoever sends sees to it that what is unsent stays bounded."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(encode_frame(message))
        if self._unanswered_since is None:
            self._unanswered_since = self._loop.time()

    async def receive(self) -> ReplicaMessage:
        """The next message. Raises EOFError when the process has ended, ProtocolViolation, or why it was given up."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            self._reader = self._loop.create_future()
            await self._reader
        self._unanswered_since = None
        return self._messages.popleft()

    def give_up(self, error: SafelightError) -> None:
        self._end(error)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  what is there is enough
        return self._buffer[self._num_bytes :]

    def buffer_updated(self, nbytes: int) -> None:
        self._num_bytes += nbytes
        try:
            self._take_frames()
        except ProtocolViolation as error:
            self._num_bytes = 0
            self._end(error)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  however it was lost, the process has ended
        self._end(EOFError())

    # What only it knows

    def _take_frames(self) -> None:
        """All that are whole. Raises ProtocolViolation."""
        received, begin = self._buffer[: self._num_bytes], 0
        while (end := begin + frame_length(received[begin:])) <= len(received):
            self._messages.append(decode_message(received[begin + FRAME_HEAD_BYTES : end], replica_messages))
            begin = end
        if begin > 0 or end > len(self._buffer):
            self._keep(bytes(received[begin:]), room=max(READ_BYTES, end - begin))

    def _keep(self, rest: bytes, *, room: int) -> None:
        """What has come of the next frame, where there is room for all of it."""
        if len(self._buffer) != room:
            self._buffer = memoryview(bytearray(room))
        self._buffer[: len(rest)] = rest
        self._num_bytes = len(rest)

    def _end(self, error: Exception) -> None:
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
