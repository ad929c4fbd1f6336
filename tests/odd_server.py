"""A server that answers what no server of OpenAI's images API should, or not at all."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(content: bytes, *, num_dropped: int = 0) -> Iterator[str]:
    """The URL of a server that has one model, and answers every request for pictures with `content`.

    The first `num_dropped` get no answer.
    """
    posts = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b'{"data": [{"id": "odd"}]}')

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
