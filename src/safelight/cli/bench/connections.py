"""HTTP/1.1 to one server, by h11 over asyncio: a fifth of httpx's CPU, so that the load is the server's and not ours.

Connections are kept for the next request that finds one idle. Nothing is redirected, and no key goes anywhere else.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import h11

from safelight import __version__
from safelight.cli.bench.target import Target

MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_HEAD_BYTES = 128 * 1024
"""Of a status line and its headers; some servers send policies and cookies of many kilobytes."""
_READ_BYTES = 256 * 1024
_REASONS: tuple[tuple[tuple[int, ...], str, str], ...] = (
    ((errno.ECONNREFUSED,), "refused", "nothing listens there"),
    ((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT), "unreachable", "there is no way to it from here"),
    ((errno.EMFILE, errno.ENFILE), "not sent", "this machine has no descriptor left for it; see `ulimit -n`"),
    ((errno.EADDRNOTAVAIL,), "not sent", "this machine has no port left for it; ask for less"),
)
"""Why there is no connection. What lacks here is no failure of the server's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the server, whatever it says."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes


class NoAnswer(Exception):
    """Nothing came that HTTP knows.

    `kind`: no host, refused, unreachable, not sent, closed, timeout, TLS, no HTTP, or too large.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class _Stale(Exception):
    """A connection that was kept, and that the server has closed meanwhile."""


@dataclass(slots=True, eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection
    is_kept: bool = False


class Connections:
    """To one server. `timeout_s` is the time from a request to the end of its answer."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []

    async def post(self, body: bytes) -> Answer:
        """Ask for a picture. Raises NoAnswer."""
        return await self._ask("POST", self._target.path, body)

    async def get(self, path: str) -> Answer:
        """Raises NoAnswer."""
        return await self._ask("GET", path, b"")

    def close(self) -> None:
        for each in self._idle:
            each.writer.transport.abort()
        self._idle.clear()

    async def _ask(self, method: str, path: str, body: bytes) -> Answer:
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                return await self._ask_once_more(method, path, body)
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message or str(error)
            raise NoAnswer("TLS", f"its certificate is not known to be its own ({why}); see --certificate") from None
        except ssl.SSLError as error:
            raise NoAnswer("TLS", error.reason or str(error)) from None
        except h11.RemoteProtocolError as error:
            raise NoAnswer("no HTTP", str(error)) from None
        except (OSError, EOFError) as error:
            if limit.expired():
                raise NoAnswer("timeout", f"no answer in {self._timeout_s:g} s") from None
            raise NoAnswer("closed", getattr(error, "strerror", None) or str(error) or type(error).__name__) from None

    async def _ask_once_more(self, method: str, path: str, body: bytes) -> Answer:
        """A server may close what is kept whenever it likes: that is no failure, and a new connection is opened."""
        while self._idle:
            try:
                return await self._exchange(self._idle.pop(), method, path, body)
            except _Stale:
                continue
        return await self._exchange(await self._connect(), method, path, body)

    async def _connect(self) -> _Connection:
        target = self._target
        try:
            reader, writer = await asyncio.open_connection(target.host, target.port, ssl=target.tls, limit=_READ_BYTES)
        except (UnicodeError, socket.gaierror):
            raise NoAnswer("no host", f"{target.host[:64]!r} is no name of a host that is known here") from None
        except OSError as error:
            for numbers, kind, message in _REASONS:
                if _is_one_of(error, numbers):
                    raise NoAnswer(kind, message) from None
            raise
        return _Connection(reader, writer, h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES))

    async def _exchange(self, connection: _Connection, method: str, path: str, body: bytes) -> Answer:
        is_reusable = False
        try:
            connection.writer.write(_request(connection.http, method, path, body, self._headers(body)))
            answer = await _receive(connection)
            is_over = connection.http.our_state is h11.DONE and connection.http.their_state is h11.DONE
            is_reusable = is_over and connection.http.trailing_data == (b"", False)  # else it answers the next
            if answer.status == 408 and connection.is_kept and not is_reusable:
                raise _Stale  # its goodbye to a connection that was idle for too long, not an answer
        finally:
            if is_reusable:
                connection.http.start_next_cycle()
                connection.is_kept = True
                self._idle.append(connection)
            else:
                connection.writer.transport.abort()  # TLS's goodbye would keep the descriptor for half a minute
        return answer

    def _headers(self, body: bytes) -> list[tuple[str, str]]:
        target = self._target
        accepted = "application/json" if target.api == "openai" else "image/png"
        headers = [
            ("host", target.authority),
            ("user-agent", f"safelight-bench/{__version__}"),
            ("accept", accepted),
            ("accept-encoding", "identity"),  # a picture is compressed already
        ]
        if body:
            headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
        if target.api_key is not None:
            headers.append(target.key_header(target.api_key))
        return headers


def _is_one_of(error: OSError, numbers: tuple[int, ...]) -> bool:
    """By one address of the host, or by all of them, which asyncio tells as words."""
    return error.errno in numbers or any(f"[Errno {each}]" in str(error) for each in numbers)


def _request(http: h11.Connection, method: str, path: str, body: bytes, headers: list[tuple[str, str]]) -> bytes:
    parts = (h11.Request(method=method, target=path, headers=headers), h11.Data(data=body), h11.EndOfMessage())
    return b"".join(http.send(part) or b"" for part in parts)


async def _receive(connection: _Connection) -> Answer:
    status, headers, content = 0, {}, _Content("")
    await _read_more(connection, is_first=True)
    while True:
        try:
            event = connection.http.next_event()
        except h11.RemoteProtocolError:
            if status and connection.reader.at_eof():
                raise EOFError("the connection was closed within the answer") from None
            raise
        if event is h11.NEED_DATA:
            await _read_more(connection)
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
            content = _Content(headers.get("content-encoding", ""))
        elif isinstance(event, h11.Data):
            content.add(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, headers, bytes(content.found))


class _Content:
    """Of one answer, as far as it came; unpacked, for some servers pack it whatever they are told."""

    def __init__(self, coding: str) -> None:
        self.found = bytearray()
        self._coding = coding.strip().lower()
        is_packed = self._coding in ("gzip", "x-gzip", "deflate")
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32) if is_packed else None
        self._is_unknown = self._coding not in ("", "identity") and not is_packed

    def add(self, data: bytes) -> None:
        """Raises NoAnswer if there is more than a picture has, packed or not."""
        if self._is_unknown:
            self.found[:] = f"the content-encoding {self._coding[:32]!r}, which was not asked for".encode()
            return
        try:
            self.found += data if self._unpacker is None else self._unpacker.decompress(data, self._room())
        except zlib.error:
            raise NoAnswer("no HTTP", f"its content is not {self._coding}, as it says") from None
        if len(self.found) > MAX_ANSWER_BYTES:
            raise NoAnswer("too large", f"the answer has more than {MAX_ANSWER_BYTES} bytes")

    def _room(self) -> int:
        """For all that it may hold, and the byte that is too much."""
        return MAX_ANSWER_BYTES + 1 - len(self.found)


async def _read_more(connection: _Connection, *, is_first: bool = False) -> None:
    """Raises _Stale if nothing at all came on a connection that was kept, EOFError on a new one."""
    try:
        data = await connection.reader.read(_READ_BYTES)
    except OSError:  # with TLS it may be closed in ways that are no ConnectionError
        if connection.is_kept and is_first:
            raise _Stale from None
        raise
    if not data and is_first:
        raise _Stale if connection.is_kept else EOFError("the connection was closed without an answer")
    connection.http.receive_data(data)
