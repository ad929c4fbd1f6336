"""HTTP byte for byte, for what no client library would send."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from tests.fakes import DEADLINE_S
from tests.live_server import LiveServer

PAUSE_S = 0.05
"""Of a client that is slow on purpose."""


@dataclass(frozen=True)
class Answer:
    """One response; `rest` is what came after it."""

    status: int
    fields: dict[str, str]
    body: bytes
    rest: bytes = b""


class Wire:
    """A connection to a server on loopback."""

    def __init__(self, server: LiveServer, *, receive_buffer: int | None = None) -> None:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(DEADLINE_S)
        sock.connect(("127.0.0.1", server.port))
        self.sock = sock if server.tls is None else server.tls.wrap_socket(sock, server_hostname="127.0.0.1")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, content: bytes | str) -> Wire:
        self.sock.sendall(content.encode() if isinstance(content, str) else content)
        return self

    def read_to_end(self) -> bytes:
        """All that comes until the server closes. A reset is none of the ends that are expected: it takes answers."""
        received = bytearray()
        while part := self.sock.recv(65536):
            received += part
        return bytes(received)

    def read_answer(self) -> Answer:
        """The next one, whether or not the server closes after it."""
        received = b""
        while not _is_complete(received):
            part = self.sock.recv(65536)
            assert part, f"closed after {received!r}"
            received += part
        return parse(received)

    def read_while_sending(self, piece: Callable[[int], bytes], *, num_pieces: int) -> bytes:
        """All that comes until the server closes, or resets what it is still sent: one piece after each pause."""
        self.sock.settimeout(PAUSE_S)
        received = bytearray()
        for index in range(num_pieces):
            try:
                part = self._receive_or_send(piece(index))
            except OSError:
                return bytes(received)
            if part == b"":
                return bytes(received)
            received += part or b""
        raise AssertionError(f"still open after {num_pieces} pieces; received {bytes(received)!r}")

    def _receive_or_send(self, piece: bytes) -> bytes | None:
        try:
            return self.sock.recv(65536)
        except TimeoutError:
            self.sock.sendall(piece)
            return None


def parse(received: bytes) -> Answer:
    """The first answer in it. Answers without Content-Length reach to the end."""
    head, _, body = received.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    length = int(fields.get("content-length", len(body)))
    return Answer(int(line.split()[1]), fields, body[:length], body[length:])


def _is_complete(received: bytes) -> bool:
    if b"\r\n\r\n" not in received:
        return False
    answer = parse(received)
    return "content-length" in answer.fields and len(answer.body) >= int(answer.fields["content-length"])
