"""What uploads may take of the memory before they are admitted: bytes that are held, and images decoded at once.

One for all routes of a server. A request holds its bytes from before it is read until its pixels are in the size of the
picture to be; from then on the limits on queued and running requests count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from safelight.errors import Overloaded

NUM_DECODERS = 2
"""An image takes up to sixteen bytes a pixel while it is decoded, converted and scaled."""

P = ParamSpec("P")
T = TypeVar("T")


class UploadBudget:
    """All of it runs in the event loop's thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._decoders = asyncio.Semaphore(NUM_DECODERS)

    @contextmanager
    def hold(self, num_bytes: int) -> Iterator[None]:
        """Count so many bytes as held. Raises Overloaded if that is too many; a single upload never is."""
        if self._held_bytes and self._held_bytes + num_bytes > self._max_bytes:
            raise Overloaded(
                f"uploads of {self._held_bytes} bytes are being read, and {self._max_bytes} is all that is held at "
                "once; send the request again later"
            )
        self._held_bytes += num_bytes
        try:
            yield
        finally:
            self._held_bytes -= num_bytes

    async def decode(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work` in a thread, when it is its turn."""
        async with self._decoders:
            return await asyncio.to_thread(work, *args, **kwargs)
