from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from safelight.control.endpoints.tokens import OidcVerifier, check_token, issue_token
from safelight.errors import AuthenticationFailed
from tests.oidc_issuer import Issuer, oidc_issuer

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


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with oidc_issuer() as issuer:
        yield issuer


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
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    with pytest.raises(AuthenticationFailed):
        OidcVerifier(issuer.url).check(jwt.encode(issuer.claims(), other, algorithm="RS256", headers={"kid": "one"}))


def test_an_issuer_that_cannot_be_reached_lets_nobody_in() -> None:
    with pytest.raises(AuthenticationFailed):
        OidcVerifier("http://127.0.0.1:9").check("a.b.c")


def test_an_issuer_that_speaks_no_http_lets_nobody_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as issuer:
        answering = threading.Thread(target=_answer_nonsense, args=(issuer,), daemon=True)
        answering.start()
        with pytest.raises(AuthenticationFailed):
            OidcVerifier(f"http://127.0.0.1:{issuer.getsockname()[1]}").check("a.b.c")
        answering.join()


def _answer_nonsense(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(b"nonsense\r\n\r\n")


@pytest.mark.parametrize("discovery", [{}, [], None, "keys", {"jwks_uri": 1}])
def test_an_issuer_that_does_not_say_where_its_keys_are_lets_nobody_in(discovery: object) -> None:
    with oidc_issuer() as issuer:
        issuer.discovery = discovery

        with pytest.raises(AuthenticationFailed):
            OidcVerifier(issuer.url).check(issuer.token())
