"""From a request to the deployment that answers it: by path, by host, or by its key, then by header or traffic.

It knows nothing of HTTP frameworks, and nothing of what a deployment is: `T` is whatever serves one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from safelight.errors import AuthenticationFailed, NotReady, ResourceNotFound

PATH_PREFIX = "/endpoints/"
DEPLOYMENT_HEADER = "azureml-model-deployment"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedEndpoint(Generic[T]):
    """An endpoint as requests meet it."""

    name: str
    traffic: Mapping[str, int]
    """Percent by deployment; sums to 0 or 100."""
    mirror_traffic: Mapping[str, int] = field(default_factory=dict)
    deployments: Mapping[str, T | None] = field(default_factory=dict)
    """None: its replicas are not ready yet."""
    key_digests: frozenset[bytes] = frozenset()
    """Of the keys that name this endpoint when neither path nor host does."""


@dataclass(frozen=True, slots=True)
class Location(Generic[T]):
    """The endpoint of a request, and the path that is left for its dialect."""

    endpoint: RoutedEndpoint[T]
    path: str


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """The deployment that answers, and the one that gets a copy."""

    name: str
    deployment: T
    mirror: T | None


def digest(key: str) -> bytes:
    """What is kept of a key to compare with."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Router(Generic[T]):
    """The endpoints that are published now."""

    def __init__(self, base_domain: str = "") -> None:
        self._suffix = f".{base_domain.lower()}" if base_domain else None
        self._endpoints: dict[str, RoutedEndpoint[T]] = {}
        self._by_key: dict[bytes, str] = {}

    def publish(self, endpoint: RoutedEndpoint[T]) -> None:
        """Add the endpoint, or replace it whole."""
        self._endpoints[endpoint.name.lower()] = endpoint
        self._index_keys()

    def all(self) -> list[RoutedEndpoint[T]]:
        """By name."""
        return sorted(self._endpoints.values(), key=lambda each: each.name)

    def remove(self, name: str) -> None:
        self._endpoints.pop(name.lower(), None)
        self._index_keys()

    def locate(self, *, path: str, host: str, key: str | None) -> Location[T] | None:
        """The endpoint that a request names; None if it names none.

        If it is not here: ResourceNotFound for who has a key of any endpoint, AuthenticationFailed for all others.
        """
        if path.startswith(PATH_PREFIX):
            name, _, rest = path.removeprefix(PATH_PREFIX).partition("/")
            return Location(self._get(name, key), f"/{rest}")
        if (name_in_host := self._name_in_host(host)) is not None:
            return Location(self._get(name_in_host, key), path)
        if key is not None and (named := self._by_key.get(digest(key))) is not None:
            return Location(self._endpoints[named], path)
        return None

    def find(self, name: str) -> RoutedEndpoint[T]:
        """Raises ResourceNotFound."""
        endpoint = self._endpoints.get(name.lower())
        if endpoint is None:
            raise ResourceNotFound(f"no endpoint '{name[:64]}' here; see `safelight online-endpoint list`")
        return endpoint

    def _get(self, name: str, key: str | None) -> RoutedEndpoint[T]:
        if name.lower() not in self._endpoints and (key is None or digest(key) not in self._by_key):
            raise refused(name[:64], key)
        return self.find(name)

    def _name_in_host(self, host: str) -> str | None:
        host_name = host.lower().partition(":")[0]
        if self._suffix is None or not host_name.endswith(self._suffix):
            return None
        return host_name.removesuffix(self._suffix)

    def _index_keys(self) -> None:
        self._by_key = {each: name for name, endpoint in self._endpoints.items() for each in endpoint.key_digests}


def refused(endpoint_name: str, key: str | None, *, credentials: str = "key") -> AuthenticationFailed:
    """In the same words whether or not there is such an endpoint."""
    if key is None:
        return AuthenticationFailed(f"endpoint '{endpoint_name}' needs its {credentials}, as `Authorization: Bearer …`")
    return AuthenticationFailed(
        f"this is no key of endpoint '{endpoint_name}'; see `safelight online-endpoint get-credentials --name "
        f"{endpoint_name}`"
    )


def choose(endpoint: RoutedEndpoint[T], wanted: str | None, *, draw: float | None = None) -> Choice[T]:
    """The deployment that the header wants, or one drawn by traffic (`draw` is in [0, 1)).

    Raises ResourceNotFound if there is no such deployment or no traffic, NotReady while its replicas start.
    """
    draw = random.random() if draw is None else draw
    name = _drawn(endpoint, draw) if wanted is None else _named(endpoint, wanted)
    deployment = endpoint.deployments.get(name)
    if deployment is None:
        raise NotReady(f"deployment '{name}' of endpoint '{endpoint.name}' is not ready yet", retry_after_s=1)
    return Choice(name, deployment, None if wanted else _mirror(endpoint))


def _named(endpoint: RoutedEndpoint[T], wanted: str) -> str:
    for name in endpoint.deployments:
        if name.lower() == wanted.lower():
            return name
    has = ", ".join(sorted(endpoint.deployments)) or "none"
    raise ResourceNotFound(f"endpoint '{endpoint.name}' has no deployment '{wanted[:64]}' that serves (it has: {has})")


def _drawn(endpoint: RoutedEndpoint[T], draw: float) -> str:
    percent = draw * 100
    for name, share in endpoint.traffic.items():
        if percent < share:
            return name
        percent -= share
    raise ResourceNotFound(
        f"endpoint '{endpoint.name}' sends no traffic to any deployment; send the header {DEPLOYMENT_HEADER}, or run: "
        f"safelight online-endpoint update --name {endpoint.name} --traffic DEPLOYMENT=100"
    )


def _mirror(endpoint: RoutedEndpoint[T]) -> T | None:
    for name, percent in endpoint.mirror_traffic.items():
        if random.random() * 100 < percent:
            return endpoint.deployments.get(name)
    return None
