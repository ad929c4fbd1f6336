"""A request's body, read before its application reads it, to see which deployment it names and if its client stays.

What was read is given to the application as if it came then.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import Message, Receive

from safelight.errors import DeadlineExceeded


class EarlyBody:
    """In place of `receive`, for the application too."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: deque[Message] = deque()
        self._num_bytes = 0
        self.is_complete = False
        self.has_left = False

    async def __call__(self) -> Message:
        """The application's `receive`; what it has is held here no longer."""
        return self._messages.popleft() if self._messages else await self._receive()

    async def read(self, *, max_bytes: int, timeout_s: float) -> None:
        """Up to the end, the limit, or the client's leaving. Raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (self.is_complete or self.has_left) and self._num_bytes <= max_bytes:
                    await self._read_message()
        except TimeoutError:
            raise DeadlineExceeded(f"the request body did not arrive within {timeout_s:g} s") from None

    def copy(self) -> Receive:
        """A `receive` that gives what was read, once more."""
        messages = deque(self._messages)

        async def receive() -> Message:
            return messages.popleft() if messages else {"type": "http.disconnect"}

        return receive

    async def client_left(self, *, max_bytes: int) -> None:
        """Returns when the client has left; never if its body is longer than that."""
        while not self.has_left and self._num_bytes <= max_bytes:
            await self._read_message()
        if not self.has_left:
            await asyncio.Event().wait()

    async def _read_message(self) -> None:
        message = await self._receive()
        self._messages.append(message)
        if message["type"] == "http.disconnect":
            self.has_left = True
            return
        self._num_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
