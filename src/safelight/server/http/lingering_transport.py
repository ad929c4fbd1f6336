"""How a connection ends whose client is still sending: it gets its answer first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

WRITE_BYTES = 64 * 1024
"""asyncio hands one large write on to below TLS, where nobody sees how much of it was taken."""


class LingeringTransport(asyncio.Transport):
    """Closing at once would reset a client that is still sending, and take the answer from it (RFC 9112, section 9.6).

    So `close` leaves the way in open until that client closes, or is overdue.
    """

    def __init__(self, transport: asyncio.Transport, is_sending: Callable[[], bool]) -> None:
        super().__init__()
        self._transport = transport
        self._is_sending = is_sending
        self._lingers = False
        self._head: bytes | bytearray | memoryview = b""

    def close(self) -> None:
        if self.is_closing():
            return
        self._flush()
        if not self._is_sending():
            self._transport.close()
            return
        self._lingers = True
        self._transport.resume_reading()
        if self._transport.can_write_eof() and not self._transport.get_write_buffer_size():
            try:
                self._transport.write_eof()
            except OSError:  # the client has left, and asyncio does not know it yet
                self._transport.abort()

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def abort(self) -> None:
        self._flush()
        self._transport.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """An answer's head waits for what may follow it in the same turn of the event loop: one write, one packet."""
        head, self._head = self._head, b""
        if head and len(head) + len(data) <= WRITE_BYTES:
            self._write(b"".join((head, data)))
        elif not head and data[:5] == b"HTTP/":
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._write(head)
            self._write(data)

    def _flush(self) -> None:
        head, self._head = self._head, b""
        self._write(head)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        if self._transport.is_closing():  # the client has left; asyncio would write a line for each piece
            return
        view = memoryview(data)  # whose pieces are no copies
        for start in range(0, len(view), WRITE_BYTES):
            self._transport.write(view[start : start + WRITE_BYTES])

    def get_write_buffer_size(self) -> int:
        return len(self._head) + self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
