"""A client's connection: uvicorn's protocol over h11, with a deadline for every wait that is the client's to end.

`Server` in `listener.py` accepts the connections, looks at each a few times in every deadline, and ends those that are
overdue. What the server itself takes its time for, such as a picture, has no deadline here.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import select
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
from safelight.server.http.room import Room
from safelight.server.http.strict_http import StrictConnection
from safelight.settings import Settings

MIN_BYTES_PER_S = 512
"""A client that sends a body or takes an answer does it at this rate at least, or it has stalled."""
SLOW_BYTES_PER_S = 16 * 1024
"""Where there is no room for another request, a client that moves less than this makes some."""
PACE_S = 0.25
"""Over how long that is measured, at least."""
PATIENCE_S = 5.0
"""With a client that has a key: it makes room only if it has moved nothing for so long."""
ASK_AFTER_S = 0.05
"""Most answers are there before; then nobody need be asked whether it has left."""
LISTEN_S = 0.1
"""How often the answer to that is looked for."""
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
        room: Room,
        is_full: Callable[[str], bool],
        is_crowded: Callable[[], bool],
    ) -> None:
        super().__init__(config, state, app_state)
        self.conn = self._http = StrictConnection(is_last_answer=is_crowded)
        self._sock = sock
        self._settings = settings
        self._room = room
        self._is_full = is_full
        self._is_refused = self._is_aborted = False
        self._sends_on = self._has_ended = False
        self._num_received = self._num_drains = 0
        self._wait: tuple[object, ...] = ()
        self._since = self._mark = 0.0
        self._paced_at = self._paced = 0.0
        self._pace = math.inf
        room.add(self)
        self._look_again()

    # What uvicorn and asyncio call

    @property
    def app(self) -> Any:
        """What answers the request that has just come."""
        return TOO_MANY if self._is_full(self.scope["path"]) else self._application

    @app.setter
    def app(self, app: Any) -> None:
        self._application = app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(LingeringTransport(transport, self._is_sending))
        self._look_again()
        if self._is_aborted:
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._num_received += len(data)
        if self.transport.is_closing() or self.conn.their_state is h11.MUST_CLOSE:
            self._sends_on = True  # after its last request: it is read, so that the answer arrives, and dropped
        else:
            super().data_received(data)
        self._look_again()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: it has left, or waits for what it asked for. True keeps the connection."""
        self._has_ended = True
        if not self._is_answering or self.cycle.more_body or self.scheme == "https":  # TLS ends on both sides at once
            return False
        if self.cycle.response_started or self.scope["http_version"] == "1.0":
            return self.scope["method"] in ("GET", "HEAD")  # nobody can be asked; and there is no work to stop
        self.loop.call_later(ASK_AFTER_S, self._ask_whether_it_left, self.cycle)
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        self._num_drains += 1
        super().resume_writing()
        self._look_again()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # it would no longer count once the first byte has come
        if self._has_ended and not self._is_answering:
            self.transport.close()
        self._look_again()

    def send_400_response(self, msg: str) -> None:
        error = self._http.refusal
        self.refuse(error.error_status_hint if error else 400, str(error) if error else msg)

    def shutdown(self) -> None:
        """Only what is worked on, and what is being taken, is still waited for."""
        if self._phase in (Phase.WORK, Phase.ANSWER) and not self.transport.is_closing():
            super().shutdown()
        elif self._phase is Phase.BODY:
            self.refuse(503, "the server is stopping; send the request again later")
        elif self._phase is not Phase.ANSWER:
            self.abort()

    def _should_upgrade(self) -> bool:
        return False  # there are no WebSockets here; without an upgrade, the request is served as it is (RFC 9110, 7.8)

    # What the server asks

    @property
    def has_request(self) -> bool:
        """A connection without one is the first that is closed to make room for another."""
        return self._phase in (Phase.BODY, Phase.WORK, Phase.ANSWER)

    @property
    def is_unheard(self) -> bool:
        """Whether it has sent something that nobody has had the time to read."""
        return self._phase in (Phase.HEAD, Phase.IDLE) and _bytes_in_kernel(self._sock, termios.FIONREAD) > 0

    def look(self, now: float) -> float:
        """Since when it waits for what it waits for now, as far as its last look can tell."""
        wait = (self._phase, self.cycle, self._num_drains)
        if wait != self._wait:
            self._wait, self._since, self._mark = wait, now, self._progress
            self._paced_at, self._paced, self._pace = now, self._mark, math.inf
            self._room.note(self)
        return self._since

    def rank(self, now: float) -> tuple[bool, float, float] | None:
        """Whether its client has a key, the pace of it, since when: whoever has the lowest goes first.

        None: it may not go, for the client has nothing to do, or does it.
        """
        since, pace = self.look(now), self._pace_at(now)
        if pace >= SLOW_BYTES_PER_S or (self._has_key and (pace > 0 or now - since < PATIENCE_S)):
            return None
        return self._has_key, pace, since

    def _pace_at(self, now: float) -> float:
        """Bytes a second that the client has moved lately; infinite if that is nothing that is waited for."""
        if self._phase not in (Phase.BODY, Phase.ANSWER):
            return math.inf
        if now - self._paced_at >= PACE_S:
            progress = self._progress
            self._pace = max(0.0, (progress - self._paced) / (now - self._paced_at))
            self._paced_at, self._paced = now, progress
        return self._pace

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
        self._since, self._mark = now, self._progress
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
        self._look_again()

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

    def _look_again(self) -> None:
        self.look(self.loop.time())

    def _ask_whether_it_left(self, cycle: object) -> None:
        """One that has closed resets the connection for whatever it gets; one that waits skips it (RFC 9110, 15.2)."""
        if cycle is self.cycle and not self.cycle.response_started and not self.transport.is_closing():
            self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self._listen_whether_it_left(cycle)

    def _listen_whether_it_left(self, cycle: object) -> None:
        if cycle is not self.cycle or not self._is_answering or self.transport.is_closing():
            return
        if _is_reset(self._sock):
            self.abort()
        else:
            self.loop.call_later(LISTEN_S, self._listen_whether_it_left, cycle)

    @property
    def _phase(self) -> Phase:
        if self.transport is None:
            return Phase.HEAD
        is_answering, is_closing = self._is_answering, self.transport.is_closing()
        has_answered = self.cycle is not None and (is_closing or not is_answering)
        if self.flow.write_paused or (has_answered and self.transport.get_write_buffer_size()):
            return Phase.ANSWER
        if is_closing:
            return Phase.CLOSING
        if is_answering:
            is_awaited = self.cycle.more_body and not self.cycle.waiting_for_100_continue
            return Phase.BODY if is_awaited and not self.flow.read_paused else Phase.WORK
        return Phase.HEAD if self.cycle is None or self._has_begun else Phase.IDLE

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _has_key(self) -> bool:
        """Whether its last request came with a key that was checked."""
        return self.cycle is not None and bool(self.cycle.scope["state"].get("has_key"))

    @property
    def _has_begun(self) -> bool:
        return self.transport is not None and self._http.has_unread

    def _is_sending(self) -> bool:
        """What it sends and nobody reads would, at the end, take its answer from it."""
        if self._has_ended:
            return False
        has_sent = self._sends_on or self._http.has_unread or self.flow.read_paused
        return self._is_refused or has_sent or self.conn.their_state is h11.SEND_BODY

    @property
    def _progress(self) -> int:
        """Bytes that the client has moved, as far as the phase has any."""
        if self._phase is Phase.BODY:
            return self._num_received
        if self._phase is Phase.ANSWER:
            return -self.transport.get_write_buffer_size() - _bytes_in_kernel(self._sock, termios.TIOCOUTQ)
        return 0


def _bytes_in_kernel(sock: socket.socket, which: int) -> int:
    """Sent and not acknowledged (TIOCOUTQ), or come and not read (FIONREAD); 0 where the system does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, which, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def _is_reset(sock: socket.socket) -> bool:
    """Whether nothing can be sent any more either."""
    poll = select.poll()
    try:
        poll.register(sock, 0)
    except (OSError, ValueError):
        return True
    return bool(poll.poll(0))
