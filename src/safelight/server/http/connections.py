"""A client's connection: uvicorn's protocol over h11, with a deadline for every wait that is the client's to end.

`Server` in `listener.py` accepts the connections, looks at each a few times in every deadline, and ends those that are
overdue. What the server itself takes its time for, such as a picture, has no deadline here.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import h11
from starlette.responses import PlainTextResponse
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from safelight.server.http.lingering_transport import LingeringTransport
from safelight.server.http.strict_http import StrictConnection
from safelight.settings import Settings

MIN_BYTES_PER_S = 512
"""A client that sends a body or takes an answer does it at this rate at least, or it has stalled."""
TOO_MANY = PlainTextResponse(
    "as many requests as max_connections allows are in progress; send the request again later\n",
    status_code=503,
    headers={"Retry-After": "1", "Connection": "close"},
)


class Phase(Enum):
    """What a connection waits for, and so who has to do something."""

    HEAD = auto()
    """The client: the TLS handshake, and the head of a request."""
    BODY = auto()
    """The client: the rest of the body."""
    WORK = auto()
    """The server."""
    ANSWER = auto()
    """The client: it has to take what was sent."""
    IDLE = auto()
    """The client: the next request, if it has one."""
    CLOSING = auto()
    """The client: it still sends, or has not said goodbye."""


class ClientConnection(H11Protocol):
    """From the moment it is accepted, before any handshake, until it is gone."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        settings: Settings,
        is_full: Callable[[], bool],
    ) -> None:
        super().__init__(config, state, app_state)
        self.conn = self._http = StrictConnection()
        self._sock = sock
        self._settings = settings
        self._is_full = is_full
        self._is_refused = self._is_aborted = False
        self._num_received = 0
        self._num_drains = 0
        self._wait: tuple[object, ...] = ()
        self._since = self._mark = 0.0
        self.look(self.loop.time())

    # What uvicorn and asyncio call

    @property
    def app(self) -> Any:
        """What answers the request that has just come."""
        return TOO_MANY if self._is_full() else self._application

    @app.setter
    def app(self, app: Any) -> None:
        self._application = app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(LingeringTransport(transport, self._is_sending))
        if self._is_aborted:
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._num_received += len(data)
        if not self.transport.is_closing():  # what comes after the last answer is read, so that it arrives, and dropped
            super().data_received(data)

    def resume_writing(self) -> None:
        self._num_drains += 1
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # it would no longer count once the first byte has come
        self.look(self.loop.time())

    def send_400_response(self, msg: str) -> None:
        error = self._http.refusal
        self.refuse(error.error_status_hint if error else 400, str(error)[:200] if error else msg)

    def shutdown(self) -> None:
        if self.transport is None or self.transport.is_closing():
            self.abort()
        else:
            super().shutdown()

    def _should_upgrade(self) -> bool:
        return False  # there are no WebSockets here; without an upgrade, the request is served as it is (RFC 9110, 7.8)

    # What the server asks

    @property
    def has_request(self) -> bool:
        """A connection without one may be closed to make room for another."""
        return self._phase in (Phase.BODY, Phase.WORK, Phase.ANSWER)

    def look(self, now: float) -> float:
        """Since when it waits for what it waits for now, as far as its last look can tell."""
        wait = (self._phase, self.cycle, self._num_drains)
        if wait != self._wait:
            self._wait, self._since, self._mark = wait, now, self._progress
        return self._since

    def end_if_overdue(self) -> None:
        """To be called several times in every deadline."""
        if self._is_overdue(self.loop.time()):
            self._expire()

    def _is_overdue(self, now: float) -> bool:
        waited_s = now - self.look(now)
        if self._phase is Phase.WORK:
            return False
        if self._phase is Phase.HEAD:
            return waited_s > self._settings.header_timeout_s
        if self._phase is Phase.IDLE:
            return waited_s > self._settings.keep_alive_timeout_s
        if waited_s <= self._settings.stall_timeout_s:
            return False
        has_moved = self._progress - self._mark >= self._settings.stall_timeout_s * MIN_BYTES_PER_S
        self._wait = ()
        return self._phase is Phase.CLOSING or not has_moved

    def _expire(self) -> None:
        """End it; a client that has begun a request is told why."""
        if self._phase is Phase.BODY:
            self.refuse(
                408, f"the body came to a halt for {self._settings.stall_timeout_s:g} s; send it without pauses"
            )
        elif self._phase is Phase.HEAD and self._has_begun:
            self.refuse(408, f"the header did not arrive within {self._settings.header_timeout_s:g} s; send it at once")
        elif self._phase in (Phase.HEAD, Phase.IDLE) and self.transport is not None:
            self.transport.close()
        else:
            self.abort()

    def refuse(self, status: int, message: str) -> None:
        """Answer what is no request, or none that will be complete, and close; without a word if it was answered."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.abort()
            return
        self._is_refused = True
        content = f"{message}\n".encode("ascii", "replace")
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    def abort(self) -> None:
        """No longer count it; its descriptor is free after the loop's next turns."""
        self._is_aborted = True
        self.connections.discard(self)
        if self.transport is not None:
            self.transport.abort()
        elif self._sock.fileno() >= 0:
            with suppress(OSError):  # its client may be gone already
                self._sock.shutdown(socket.SHUT_RDWR)  # so that the handshake fails, and asyncio closes what it opened

    # What only it knows

    @property
    def _phase(self) -> Phase:
        if self.transport is None:
            return Phase.HEAD
        is_answering = self.cycle is not None and not self.cycle.response_complete
        is_closing = self.transport.is_closing()
        if self.flow.write_paused or (self.transport.get_write_buffer_size() and (is_closing or not is_answering)):
            return Phase.ANSWER
        if is_closing:
            return Phase.CLOSING
        if is_answering:
            is_awaited = self.cycle.more_body and not self.cycle.waiting_for_100_continue
            return Phase.BODY if is_awaited and not self.flow.read_paused else Phase.WORK
        return Phase.HEAD if self.cycle is None or self._has_begun else Phase.IDLE

    @property
    def _has_begun(self) -> bool:
        return self.transport is not None and bool(self.conn.trailing_data[0])

    def _is_sending(self) -> bool:
        return self._is_refused or self.conn.their_state is h11.SEND_BODY

    @property
    def _progress(self) -> int:
        """Bytes that the client has moved, as far as the phase has any."""
        if self._phase is Phase.BODY:
            return self._num_received
        if self._phase is Phase.ANSWER:
            return -self.transport.get_write_buffer_size() - _bytes_in_kernel(self._sock)
        return 0


def _bytes_in_kernel(sock: socket.socket) -> int:
    """What was sent and the client has not acknowledged; 0 where the system does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0
