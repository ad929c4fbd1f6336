"""uvicorn's server with a door of its own: it accepts as many connections as there is room for, and never runs out.

asyncio's accepts whatever comes, and where descriptors are out it logs a traceback for every connection that waits.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import select
import socket
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from safelight.server.certificates import certificate_files
from safelight.server.http.connections import ClientConnection
from safelight.server.http.room import Occupant, Room
from safelight.settings import Settings

logger = logging.getLogger(__name__)

LAST_WORDS_S = 2
"""For answers that are still being sent, and clients that never finish sending, after everything else is done."""
ACCEPTS_PER_TURN = 8
"""Of the event loop: those who come must not keep waiting those who are here."""
RETRY_S = 0.02
"""Until connections are accepted again after there was no descriptor or no room for one."""
LOG_INTERVAL_S = 1.0
HEALTH = "/health"
TICKS_PER_S = 10
"""uvicorn's. Each connection is looked at once a second, or four times in the shortest deadline."""
DESCRIPTORS_IF_UNLIMITED = 10_240
"""What macOS gives a process at most, whatever it says."""
A_DAY_S = 86_400.0
"""asyncio's own deadline for the end of TLS would cut an answer off that is still being taken."""


class Server(uvicorn.Server):
    """Serves an application as the settings say, on the sockets that `serve` is given."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        certificate, key = certificate_files(settings) if settings.tls else (None, None)
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                ssl_certfile=certificate,
                ssl_keyfile=key,
                log_config=None,
                server_header=False,
                proxy_headers=False,  # X-Forwarded-*: any client on this machine could write them
                timeout_graceful_shutdown=LAST_WORDS_S + 1,  # its end is a traceback for each that is still there
            )
        )
        self._settings = settings
        self.server_state.connections = self._room = Room()  # type: ignore[assignment]
        self._max_connections = connections_possible(settings.max_connections)
        self._max_requests = self._max_connections - max(1, self._max_connections // 8)
        """A few connections more than requests: there is always one to be told so, or to be closed for another."""
        shortest_s = min(settings.header_timeout_s, settings.keep_alive_timeout_s, settings.stall_timeout_s)
        self._ticks_per_look = max(1, min(TICKS_PER_S, int(shortest_s / 4 * TICKS_PER_S)))
        self._opening: set[asyncio.Task[None]] = set()
        self._logged_at: dict[str, float] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        for listener in sockets or []:
            listener.setblocking(False)
            listener.listen(self.config.backlog)
            self._listen(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or []:
            asyncio.get_running_loop().remove_reader(listener)
        cutting = asyncio.get_running_loop().call_later(LAST_WORDS_S, self._cut)
        await super().shutdown(sockets)
        cutting.cancel()
        self._cut()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=LAST_WORDS_S)

    def _cut(self) -> None:
        for each in self._connections:
            each.abort()

    async def on_tick(self, counter: int) -> bool:
        if counter % self._ticks_per_look == 0:
            loop = asyncio.get_running_loop()
            for each in self._connections:
                loop.call_soon(each.end_if_overdue)  # each for itself: no bug about one may spare the others
        return await super().on_tick(counter)

    @property
    def _connections(self) -> list[ClientConnection]:
        return [each for each in self.server_state.connections if isinstance(each, ClientConnection)]

    def _listen(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if self._is_crowded() and not self._make_room_at(listener):
                return
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._wait_for_descriptors(listener, error)
                return
            _send_at_once(sock)
            self._open(sock)

    def _is_crowded(self) -> bool:
        return len(self._room) >= self._max_connections

    def _make_room_at(self, listener: socket.socket) -> bool:
        """Close the connection that is missed least, if anybody comes; if none may go now, who comes has to wait."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        if not poll.poll(0):
            return False
        self._warn(
            "%d connections are open and there is room for no more: each new one closes that which has been without a "
            "request for longest, or whose client is the slowest (max_connections)",
            self._max_connections,
        )
        if self._close(self._room.least_missed(asyncio.get_running_loop().time())):
            return True
        self._pause(listener)
        return False

    def _close(self, connection: Occupant | None) -> bool:
        if isinstance(connection, ClientConnection):
            connection.abort()
        return connection is not None

    def _wait_for_descriptors(self, listener: socket.socket, error: OSError) -> None:
        self._warn(
            "no connection can be accepted beside the %d that are open: %s; raise the limit (ulimit -n, LimitNOFILE=), "
            "or lower max_connections",
            len(self._room),
            error.strerror,
        )
        for _ in range(ACCEPTS_PER_TURN):
            self._close(self._room.least_missed(asyncio.get_running_loop().time()))
        self._pause(listener)

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(RETRY_S, self._listen, listener)

    def _open(self, sock: socket.socket) -> None:
        connection = ClientConnection(
            sock,
            config=self.config,
            state=self.server_state,
            app_state=self.lifespan.state,
            settings=self._settings,
            room=self._room,
            is_full=self._is_full,
            is_crowded=self._is_crowded,
        )
        task = asyncio.create_task(self._connect(connection, sock))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, connection: ClientConnection, sock: socket.socket) -> None:
        timeouts = {}
        if self.config.ssl is not None:
            timeouts = {"ssl_handshake_timeout": self._settings.header_timeout_s, "ssl_shutdown_timeout": A_DAY_S}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, sock, ssl=self.config.ssl, **timeouts
            )
        except OSError as error:  # the client has left, or does not speak TLS
            logger.debug("a connection could not be opened: %s", error)
            self._room.discard(connection)

    def _is_full(self, path: str) -> bool:
        """Whether the request that has just come is one too many. Whoever asks how the server is gets to know it."""
        if self._room.num_requests < self._max_requests or path == HEALTH or path.startswith(f"{HEALTH}/"):
            return False
        slowest = self._room.slowest(asyncio.get_running_loop().time())
        if self._close(slowest) or self._room.num_requests < self._max_requests:  # looking may have found some at rest
            return False
        self._warn("%d requests are in progress; more get 503 (max_connections)", self._max_requests)
        return True

    def _warn(self, message: str, *args: object) -> None:
        """Log it, but not again within a second: whoever is to see it does, and the log does not fill the disk."""
        now = asyncio.get_running_loop().time()
        if now - self._logged_at.get(message, -LOG_INTERVAL_S) >= LOG_INTERVAL_S:
            self._logged_at[message] = now
            logger.warning(message, *args)


def raise_descriptor_limit() -> None:
    """To what the system allows this process: each connection takes a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, DESCRIPTORS_IF_UNLIMITED)
    with suppress(ValueError, OSError):  # then it stays as it is, and `connections_possible` reckons with that
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _send_at_once(sock: socket.socket) -> None:
    """An answer's body follows its head: else it waits 40 ms for the client to acknowledge that (RFC 896, RFC 1122).

    asyncio does so for sockets that say they are TCP; those of `socket.create_server` do not.
    """
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):  # the client has left already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def connections_possible(wanted: int) -> int:
    """`wanted`, or fewer: a quarter of the descriptors is for replicas, files and the database."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or wanted <= soft * 3 // 4:
        return wanted
    logger.warning(
        "max_connections is %d, but %d descriptors leave room for %d; raise their limit (ulimit -n, LimitNOFILE=)",
        wanted,
        soft,
        soft * 3 // 4,
    )
    return soft * 3 // 4
