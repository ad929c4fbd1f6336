"""HTTP/1.1 to one server, by h11 over asyncio: a fifth of httpx's CPU, so that the load is the server's and not ours.

Connections are kept for the next request that finds one idle. Nothing is redirected, and no key goes anywhere else.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import h11

from safelight import __version__
from safelight.cli.bench.target import Target

MAX_ANSWER_BYTES = 256 * 1024 * 1024
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the server, whatever it says."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes


class NoAnswer(Exception):
    """Nothing came that HTTP knows. `kind`: no host, refused, closed, timeout, TLS, no HTTP, or too large."""

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
        while self._idle:
            self._idle.pop().writer.close()

    async def _ask(self, method: str, path: str, body: bytes) -> Answer:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask_once_more(method, path, body)
        except TimeoutError:
            raise NoAnswer("timeout", f"no answer in {self._timeout_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message or str(error)
            raise NoAnswer("TLS", f"its certificate is not known to be its own ({why}); see --certificate") from None
        except ssl.SSLError as error:
            raise NoAnswer("TLS", error.reason or str(error)) from None
        except h11.RemoteProtocolError as error:
            raise NoAnswer("no HTTP", str(error)) from None
        except (OSError, EOFError) as error:
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
            if not _is_refused(error):
                raise
            raise NoAnswer("refused", "nothing listens there") from None
        return _Connection(reader, writer, h11.Connection(h11.CLIENT))

    async def _exchange(self, connection: _Connection, method: str, path: str, body: bytes) -> Answer:
        is_reusable = False
        try:
            connection.writer.write(_request(connection.http, method, path, body, self._headers(body)))
            answer = await _receive(connection)
            is_over = connection.http.our_state is h11.DONE and connection.http.their_state is h11.DONE
            is_reusable = is_over and connection.http.trailing_data == (b"", False)  # else it answers the next
        finally:
            if is_reusable:
                connection.http.start_next_cycle()
                connection.is_kept = True
                self._idle.append(connection)
            else:
                connection.writer.close()
        return answer

    def _headers(self, body: bytes) -> list[tuple[str, str]]:
        target = self._target
        accepted = "application/json" if target.api == "openai" else "image/png"
        headers = [("host", target.authority), ("user-agent", f"safelight-bench/{__version__}"), ("accept", accepted)]
        if body:
            headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
        if target.api_key is not None:
            headers.append(("authorization", f"Bearer {target.api_key}"))
        return headers


def _is_refused(error: OSError) -> bool:
    """By every address of the host, which asyncio tells as words."""
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)


def _request(http: h11.Connection, method: str, path: str, body: bytes, headers: list[tuple[str, str]]) -> bytes:
    parts = (h11.Request(method=method, target=path, headers=headers), h11.Data(data=body), h11.EndOfMessage())
    return b"".join(http.send(part) or b"" for part in parts)


async def _receive(connection: _Connection) -> Answer:
    status, headers, content = 0, {}, bytearray()
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
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > MAX_ANSWER_BYTES:
                raise NoAnswer("too large", f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, headers, bytes(content))


async def _read_more(connection: _Connection, *, is_first: bool = False) -> None:
    """Raises _Stale if nothing at all came on a connection that was kept, EOFError on a new one."""
    try:
        data = await connection.reader.read(_READ_BYTES)
    except ConnectionError:
        if connection.is_kept and is_first:
            raise _Stale from None
        raise
    if not data and is_first:
        raise _Stale if connection.is_kept else EOFError("the connection was closed without an answer")
    connection.http.receive_data(data)
