"""A server that answers what no server should, or not at all."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(
    content: bytes, *, num_dropped: int = 0, resources: bytes = b'{"data": [{"id": "odd"}]}'
) -> Iterator[str]:
    """The URL of a server that answers every request for pictures with `content`, and what it is to list with
    `resources`: by default one model.

    The first `num_dropped` get no answer.
    """
    posts = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(resources)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if next(posts) >= num_dropped:
                self._answer(content)

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
