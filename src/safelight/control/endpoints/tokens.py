"""Tokens for the data plane: our own signed ones (`aml_token`), and those of a configured OIDC issuer (`aad_token`)."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from dataclasses import dataclass, field

import jwt

from safelight.errors import AuthenticationFailed

AUDIENCE = "https://ml.azure.com"
TOKEN_LIFETIME_S = 12 * 3600
REFRESH_AFTER_S = 8 * 3600
DISCOVERY_TIMEOUT_S = 10
_ASYMMETRIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointToken:
    """A token and when it ends, in seconds since 1970."""

    text: str = field(repr=False)
    expires_at: int
    refresh_after: int


def issue_token(endpoint_name: str, signing_key: str, *, now: float | None = None) -> EndpointToken:
    """A token that opens one endpoint for some hours."""
    issued_at = int(time.time() if now is None else now)
    claims = {"sub": endpoint_name, "aud": AUDIENCE, "iat": issued_at, "exp": issued_at + TOKEN_LIFETIME_S}
    return EndpointToken(
        text=jwt.encode(claims, signing_key, algorithm="HS256"),
        expires_at=issued_at + TOKEN_LIFETIME_S,
        refresh_after=issued_at + REFRESH_AFTER_S,
    )


def check_token(text: str, endpoint_name: str, signing_key: str) -> None:
    """Raises AuthenticationFailed."""
    try:
        claims = jwt.decode(text, signing_key, algorithms=["HS256"], audience=AUDIENCE, options={"require": ["exp"]})
    except jwt.ExpiredSignatureError:
        raise AuthenticationFailed(
            f"the token has expired; get a new one: safelight online-endpoint get-credentials --name {endpoint_name}"
        ) from None
    except jwt.InvalidTokenError:
        raise AuthenticationFailed(f"this is no token of endpoint '{endpoint_name}'") from None
    if claims.get("sub") != endpoint_name:
        raise AuthenticationFailed(f"this is no token of endpoint '{endpoint_name}'")


class OidcVerifier:
    """Verifies JWTs of one issuer against the keys that it publishes. Blocks on the network: call it in a thread."""

    def __init__(self, issuer: str, *, audience: str = AUDIENCE) -> None:
        self._issuer = issuer.rstrip("/")
        self._audience = audience
        self._keys: jwt.PyJWKClient | None = None

    def check(self, text: str) -> None:
        """Raises AuthenticationFailed."""
        try:
            key = self._jwks().get_signing_key_from_jwt(text)
            jwt.decode(
                text,
                key.key,
                algorithms=_ASYMMETRIC,
                audience=self._audience,
                issuer=[self._issuer, self._issuer + "/"],
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise AuthenticationFailed(f"the token of {self._issuer} has expired; get a new one") from None
        except (jwt.PyJWTError, OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            raise AuthenticationFailed(f"the token is not accepted as one of {self._issuer}: {error}") from None

    def is_issuer_of(self, text: str) -> bool:
        """Whether a token claims to be this issuer's; nothing is verified yet."""
        return (claim_of(text, "iss") or "").rstrip("/") == self._issuer

    def _jwks(self) -> jwt.PyJWKClient:
        if self._keys is None:
            url = f"{self._issuer}/.well-known/openid-configuration"
            with urllib.request.urlopen(url, timeout=DISCOVERY_TIMEOUT_S) as response:  # noqa: S310  configured by the admin
                self._keys = jwt.PyJWKClient(str(json.load(response)["jwks_uri"]), timeout=DISCOVERY_TIMEOUT_S)
        return self._keys


def subject_of(text: str) -> str | None:
    """Who a token claims to be: of our own ones the endpoint that it opens. Nothing is verified yet."""
    return claim_of(text, "sub")


def claim_of(text: str, name: str) -> str | None:
    try:
        claims: dict[str, object] = jwt.decode(text, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    return None if claims.get(name) is None else str(claims[name])
