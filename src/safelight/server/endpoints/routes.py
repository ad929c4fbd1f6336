"""What the reconciler publishes, as the gateway uses it: where an endpoint is, and who may call it."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping, Sequence

from starlette.requests import Request

from safelight.control.endpoints.tokens import OidcVerifier, check_token, subject_of
from safelight.control.endpoints.transactions import EndpointState
from safelight.errors import AuthenticationFailed, NotReady, ResourceNotFound
from safelight.server.auth import key_of
from safelight.server.endpoints.router import PATH_PREFIX, Location, RoutedEndpoint, Router, digest, refused
from safelight.server.endpoints.starter import ServedDeployment
from safelight.serving.dispatcher import SHUTDOWN_RETRY_AFTER_S, ReplicaSnapshot


class EndpointRoutes:
    """The router with the credentials of its endpoints."""

    def __init__(self, base_domain: str, verifier: OidcVerifier | None) -> None:
        self._router = Router[ServedDeployment](base_domain)
        self._states: dict[str, EndpointState] = {}
        self._verifier = verifier
        self._is_closing = False
        self._changed = asyncio.Event()

    def refuse_new(self) -> None:
        """The server is about to end."""
        self._is_closing = True
        self._changed.set()

    def publish(self, endpoint: EndpointState, serving: Mapping[str, ServedDeployment]) -> None:
        """From now on requests for the endpoint go to these deployments."""
        self._states[endpoint.name] = endpoint
        keys = endpoint.keys if endpoint.auth_mode == "key" else ()
        self._router.publish(
            RoutedEndpoint(
                name=endpoint.name,
                traffic=endpoint.traffic,
                mirror_traffic=endpoint.mirror_traffic,
                deployments={name: serving.get(name) for name in endpoint.deployment_names | serving.keys()},
                key_digests=frozenset(map(digest, keys)),
            )
        )
        self._changed.set()

    async def wait_for_change(self) -> None:
        """Until something is published or removed."""
        self._changed.clear()
        await self._changed.wait()

    def remove(self, endpoint_name: str) -> None:
        self._states.pop(endpoint_name, None)
        self._router.remove(endpoint_name)
        self._changed.set()

    def locate(self, request: Request) -> Location[ServedDeployment] | None:
        """The endpoint that a request names by path, host, key or token.

        Raises ResourceNotFound, or AuthenticationFailed in front of those who have no key of any endpoint.
        """
        path, key = request.scope["path"], key_of(request)
        location = self._router.locate(path=path, host=request.headers.get("host", ""), key=key)
        if location is None and key is not None and (name := self._named_by_token(key)) is not None:
            return self.find(name, path)
        return location

    def all(self) -> list[RoutedEndpoint[ServedDeployment]]:
        """By name."""
        return self._router.all()

    def find(self, endpoint_name: str, path: str) -> Location[ServedDeployment]:
        """As `locate`, by name alone. Raises ResourceNotFound."""
        return Location(self._router.find(endpoint_name), path)

    def replicas_of(self, endpoint_name: str, deployment_name: str) -> Sequence[ReplicaSnapshot]:
        """Those of a deployment that serves, one by one; none until it does."""
        try:
            served = self._router.find(endpoint_name).deployments.get(deployment_name)
        except ResourceNotFound:
            return ()
        return () if served is None else served.replicas

    def identity_of(self, endpoint_name: str, key: str | None) -> str:
        """What stays the same when a caller whose credentials were checked comes again, with a new key or token too.

        Keys and aml_tokens do not tell who holds them: they stand for the endpoint, from its creation to its deletion.
        """
        state = self._states[endpoint_name]
        if state.auth_mode != "aad_token":
            return f"endpoint {state.created_at.timestamp()}"
        subject = subject_of(key or "")
        return f"subject {subject}" if subject is not None else f"key {key}"

    def _named_by_token(self, token: str) -> str | None:
        """Our own tokens name their endpoint; those of the OIDC issuer mean the only one that takes them."""
        if self._verifier is None or not self._verifier.is_issuer_of(token):
            name = subject_of(token)
            return name if name in self._states else None
        names = [name for name, state in self._states.items() if state.auth_mode == "aad_token"]
        if len(names) > 1:
            raise ResourceNotFound(
                "the token does not say which of several endpoints is asked; put /endpoints/NAME before the path"
            )
        return names[0] if names else None

    def check_open(self) -> None:
        """Raises NotReady when the server is about to end."""
        if self._is_closing:
            raise NotReady("the server is shutting down", retry_after_s=SHUTDOWN_RETRY_AFTER_S)

    async def check(self, endpoint_name: str, key: str | None) -> None:
        """Raises AuthenticationFailed, or NotReady when the server is about to end."""
        self.check_open()
        state = self._states[endpoint_name]
        if key is None:
            raise refused(endpoint_name, key, credentials=_CREDENTIALS[state.auth_mode])
        if state.auth_mode == "aml_token":
            check_token(key, endpoint_name, state.token_key)
        elif state.auth_mode == "aad_token":
            await self._check_issuer(endpoint_name, key)
        elif not any(hmac.compare_digest(digest(key), digest(each)) for each in state.keys):
            raise refused(endpoint_name, key)

    async def _check_issuer(self, endpoint_name: str, token: str) -> None:
        if self._verifier is None:
            raise AuthenticationFailed(
                f"endpoint '{endpoint_name}' takes tokens of an OIDC issuer, and none is configured: set "
                "SAFELIGHT_OIDC_ISSUER"
            )
        await asyncio.to_thread(self._verifier.check, token)


_CREDENTIALS = {"key": "key", "aml_token": "token", "aad_token": "OIDC token"}


def inner_path(path: str) -> str:
    """A path without the endpoint in front of it: what its dialect is told by."""
    if not path.startswith(PATH_PREFIX):
        return path
    return "/" + path.removeprefix(PATH_PREFIX).partition("/")[2]
