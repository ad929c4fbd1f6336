from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from safelight.control.tokens import AUDIENCE, OidcVerifier, check_token, issue_token
from safelight.errors import AuthenticationFailed

KEY = "k" * 48


def test_a_token_opens_its_endpoint() -> None:
    check_token(issue_token("flux", KEY).text, "flux", KEY)


def test_a_token_ends_and_says_how_to_get_another() -> None:
    old = issue_token("flux", KEY, now=time.time() - 24 * 3600)

    with pytest.raises(AuthenticationFailed, match="get-credentials"):
        check_token(old.text, "flux", KEY)


@pytest.mark.parametrize(("endpoint", "key"), [("other", KEY), ("flux", "x" * 48)])
def test_a_token_opens_nothing_else(endpoint: str, key: str) -> None:
    with pytest.raises(AuthenticationFailed, match="no token of"):
        check_token(issue_token("flux", KEY).text, endpoint, key)


class Issuer:
    """A local OIDC issuer: a discovery document, its keys, and tokens."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def token(self, **claims: object) -> str:
        standard = {"iss": self.url, "aud": AUDIENCE, "exp": int(time.time()) + 600, "sub": "someone"}
        return jwt.encode(standard | claims, self.key, algorithm="RS256", headers={"kid": "one"})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = issuer._jwks() if self.path == "/keys" else {"jwks_uri": f"{issuer.url}/keys"}
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


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever)
    thread.start()
    yield issuer
    issuer.server.shutdown()
    thread.join()
    issuer.server.server_close()


def test_a_token_of_the_issuer_is_accepted(issuer: Issuer) -> None:
    OidcVerifier(issuer.url).check(issuer.token())


@pytest.mark.parametrize(
    "claims", [{"aud": "https://other"}, {"iss": "https://other"}, {"exp": 1}], ids=["audience", "issuer", "expired"]
)
def test_a_token_with_a_wrong_claim_is_refused(issuer: Issuer, claims: dict[str, object]) -> None:
    with pytest.raises(AuthenticationFailed):
        OidcVerifier(issuer.url).check(issuer.token(**claims))


@pytest.mark.parametrize("text", ["", "abc", "a.b.c"])
def test_what_is_no_token_is_refused(issuer: Issuer, text: str) -> None:
    with pytest.raises(AuthenticationFailed):
        OidcVerifier(issuer.url).check(text)


def test_a_token_signed_by_another_key_is_refused(issuer: Issuer) -> None:
    claims = {"iss": issuer.url, "aud": AUDIENCE, "exp": int(time.time()) + 600}
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    with pytest.raises(AuthenticationFailed):
        OidcVerifier(issuer.url).check(jwt.encode(claims, other, algorithm="RS256", headers={"kid": "one"}))


def test_an_issuer_that_cannot_be_reached_lets_nobody_in() -> None:
    with pytest.raises(AuthenticationFailed):
        OidcVerifier("http://127.0.0.1:9").check("a.b.c")
