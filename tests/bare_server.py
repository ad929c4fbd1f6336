"""A server that sends bytes as they are given, whether HTTP knows them or not, and keeps what it was sent."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

PNG = b"\x89PNG\r\n\x1a\n and so on"
HANG = b"HANG"
"""In place of bytes: nothing is ever answered."""

CLOSE = b"CLOSE"
"""After bytes, or in place of them: the connection is closed."""


@dataclass(frozen=True)
class Sent:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, object]


@dataclass
class BareServer:
    """Where it listens, and what it was sent."""

    url: str = ""
    requests: list[Sent] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def bare_server(
    answer: Callable[[int], bytes], *, is_kept: bool = True, tls: ssl.SSLContext | None = None
) -> Iterator[BareServer]:
    """Answers request number N with `answer(N)`; if not `is_kept`, it closes the connection after each."""
    server = BareServer()
    lock = threading.Lock()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while sent := _read(self.rfile):
                with lock:
                    number = len(server.requests)
                    server.requests.append(sent)
                content = answer(number)
                if content == HANG:
                    server.is_over.wait(60)
                    return
                self.wfile.write(content.removesuffix(CLOSE))
                if not is_kept or content.endswith(CLOSE):
                    return

    class Threads(socketserver.ThreadingTCPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that leaves is no news."""

    with Threads(("127.0.0.1", 0), Handler) as listening:
        if tls is not None:
            listening.socket = tls.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.server_address[1]}"
        try:
            yield server
        finally:
            server.is_over.set()
            listening.shutdown()
            thread.join()


def response(status: str, body: bytes, *headers: str) -> bytes:
    """With a length, as HTTP wants it."""
    lines = (f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + body


def json_response(status: str, value: object, *headers: str) -> bytes:
    return response(status, json.dumps(value).encode(), "content-type: application/json", *headers)


def picture(_: int) -> bytes:
    """What begins as a picture does, in Hugging Face's way."""
    return response("200 OK", PNG, "content-type: image/png")


def _read(stream: object) -> Sent | None:
    first = stream.readline().decode().split()  # type: ignore[attr-defined]
    if not first:
        return None
    headers = {}
    while line := stream.readline().decode().strip():  # type: ignore[attr-defined]
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))  # type: ignore[attr-defined]
    return Sent(first[1], headers, json.loads(body) if body else {})
