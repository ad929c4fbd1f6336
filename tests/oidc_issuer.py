"""An OIDC issuer on loopback: a discovery document, its keys, and tokens."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from safelight.control.endpoints.tokens import AUDIENCE


class Issuer:
    """A local OIDC issuer: a discovery document, its keys, and tokens."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.discovery: object = {"jwks_uri": f"{self.url}/keys"}

    def token(self, **claims: object) -> str:
        return jwt.encode(self.claims() | claims, self.key, algorithm="RS256", headers={"kid": "one"})

    def claims(self) -> dict[str, object]:
        return {"iss": self.url, "aud": AUDIENCE, "exp": int(time.time()) + 600, "sub": "someone"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = issuer._jwks() if self.path == "/keys" else issuer.discovery
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _jwks(self) -> dict[str, object]:
        numbers = self.key.public_key().public_numbers()
        return {"keys": [{"kty": "RSA", "kid": "one", "use": "sig", "n": _encode(numbers.n), "e": _encode(numbers.e)}]}


def _encode(number: int) -> str:
    content = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@contextmanager
def oidc_issuer() -> Iterator[Issuer]:
    """Serving until the block ends."""
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.server.shutdown()
        thread.join()
        issuer.server.server_close()
