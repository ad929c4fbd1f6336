"""The Ray cluster: joining it, placing the actors of replicas in it, and fetching a model once on each node."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar

import ray
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub leaves it out
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from safelight.environment import hidden, read_environment
from safelight.errors import ConfigurationError
from safelight.serving.backends.child_environment import is_private
from safelight.serving.backends.ray.actor import ReplicaActor
from safelight.serving.backends.ray.fetcher import Fetcher
from safelight.serving.backends.ray.frames import VERSION, Located
from safelight.settings import Settings

MAX_CALLS = 1000
"""Of one actor at once: each gateway waits with one for news, and sends with another."""
MAX_ASKING = 32
"""Threads that ask the head at once."""
NODE_ID = "ray.io/node-id"
"""A label that Ray gives each node."""
LOCAL_OBJECT_STORE_BYTES = 200_000_000
"""Of a Ray of our own; pictures pass through it, and none stays."""


AUTO = "auto"
"""The cluster that this machine is a node of, or that RAY_ADDRESS names."""
MAX_PORT = 65535
CONNECT_TIMEOUT_S = 10.0
_HEAD = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):(?P<port>\d{1,5})")
"""No `ray://`, which would let the head unpickle in our name, and no `local`, which starts another Ray."""

FRAME_HEAD_BYTES = 9
_SETTINGS = b"\x04"
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0" + _SETTINGS + bytes(5)
"""What gRPC begins with: a preface and an empty SETTINGS, which the other side answers with its own (RFC 9113, 3.4)."""
MAX_WORDS = 300
"""Characters of what Ray says; of some errors it is pages."""
_OWN_REMEDY = "a Ray of this server's own needs a short path for its sockets (RAY_TMPDIR=/tmp) and some hundreds of MB"
_REMEDY = (
    "start a node here first, ray start --head or ray start --address=HEAD:6379 --num-cpus=0, with the same Ray and "
    "Python on all machines, and the same RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token"
)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PlaceWish:
    """Where a replica may run."""

    instance_type: str = ""
    """Nodes may offer it, as a resource of that name."""
    num_cpus: float = 1.0
    num_gpus: float | None = None
    """None: one, if the cluster has any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a node must have free for a replica."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        named = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus} | dict(self.resources)
        return ", ".join(f"{name}={amount:g}" for name, amount in named.items() if amount) or "nothing"


class RayCluster:
    """A joined cluster. All of it but `run` blocks: `run` it."""

    def __init__(self, settings: Settings) -> None:
        self._namespace = settings.ray_namespace
        self._threads = ThreadPoolExecutor(MAX_ASKING, thread_name_prefix="ray")
        self._versions: dict[str, str] = {}
        """Of nodes that have another Safelight than this gateway, by their ids."""
        _join(settings)

    async def run(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A method of this object in a thread. While the head is away it waits, and none but its like with it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(ask, *args, **kwargs))

    def find_or_create(self, name: str, place: Place) -> Any:
        """The actor of that name, which is placed as soon as a node has room for it, and no other version."""
        others = ", ".join(sorted(self._versions))
        return (
            ray.remote(ReplicaActor)
            .options(
                name=name,
                namespace=self._namespace,
                get_if_exists=True,
                lifetime="detached",
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=MAX_CALLS,
                num_cpus=place.num_cpus,
                num_gpus=place.num_gpus,
                resources=dict(place.resources),
                label_selector={NODE_ID: f"!in({others})"} if others else None,
            )
            .remote()
        )

    def leave_node(self, actor: Any, located: Located) -> None:
        """End an actor on a node of another version, and have no more placed there: the node is its own gateways'."""
        self._versions[located.node] = located.version
        self.end(actor)

    def describe(self, place: Place) -> str:
        """What a replica waits for, in words."""
        if not self._versions:
            return str(place)
        others = ", ".join(f"node {node} has {version}" for node, version in sorted(self._versions.items()))
        return f"{place}, and with Safelight {VERSION} as this gateway ({others})"

    def restart(self, actor: Any) -> None:
        """End an actor that does not answer; Ray starts it again, where there is room."""
        ray.kill(actor, no_restart=False)

    def end(self, actor: Any) -> None:
        """Of one that is not started again."""
        ray.kill(actor, no_restart=True)

    def fetcher(self, name: str, node_id: str) -> Any:
        """The one that fetches on a node what is called so; it ends by itself."""
        return (
            ray.remote(Fetcher)
            .options(
                name=f"fetch/{VERSION}/{name}/{node_id}",
                namespace=self._namespace,
                get_if_exists=True,
                lifetime="detached",
                max_concurrency=MAX_CALLS,
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote()
        )

    def place_for(self, wish: PlaceWish) -> Place:
        """A GPU if the cluster has any, and the resource that nodes offer under the instance type's name."""
        total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        num_gpus = float("GPU" in total) if wish.num_gpus is None else wish.num_gpus
        named = {wish.instance_type: 1.0} if wish.instance_type in total else {}
        return Place(num_cpus=wish.num_cpus, num_gpus=num_gpus, resources=named)


def _join(settings: Settings) -> None:
    address = _address_of_head(settings)
    is_own = address is None
    try:
        with hidden(_is_not_rays):
            ray.init(
                address="local" if address is None else _reached(address),
                namespace=settings.ray_namespace,
                object_store_memory=LOCAL_OBJECT_STORE_BYTES if is_own else None,
                include_dashboard=False if is_own else None,
                log_to_driver=False,
                logging_level=logging.WARNING,
                configure_logging=False,
            )
    except Exception as error:  # noqa: BLE001  Ray raises bare ones too
        remedy = _OWN_REMEDY if is_own else _REMEDY
        raise ConfigurationError(f"ray_address {address or '(none)'}: {_in_one_line(error)}; {remedy}") from None


def _address_of_head(settings: Settings) -> str | None:
    """None: there is none yet. Raises ConfigurationError for what Ray would take for something else."""
    address, name = settings.ray_address, "ray_address"
    if address == AUTO and (other := read_environment().get("RAY_ADDRESS")):
        address, name = other, "RAY_ADDRESS"
    if address is None or address == AUTO:
        return address
    if (found := _HEAD.fullmatch(address)) is None or not 0 < int(found["port"]) <= MAX_PORT:
        raise ConfigurationError(
            f"{name} {address!r}: give the address of the cluster's head, such as HEAD:6379, or auto; this "
            "machine must be a node of it (ray start --address=HEAD:6379 --num-cpus=0)"
        )
    return address


def _reached(address: str) -> str:
    """The same, if a Ray answers there: Ray itself would try for minutes, and not in lines of the log.

    Raises ConnectionError.
    """
    found = canonicalize_bootstrap_address(address)
    if found is None:
        raise ConnectionError("this machine is no node of a cluster")
    host, _, port = found.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S) as connection:
            connection.sendall(_HTTP2)
            answer = connection.recv(FRAME_HEAD_BYTES)
    except OSError as error:
        raise ConnectionError(f"nothing answers at {found} ({error.strerror or error})") from None
    try:
        if answer[3:4] != _SETTINGS and not _uses_tls():
            raise ConnectionError("it speaks something else, or TLS, which RAY_USE_TLS and its certificates turn on")
        GcsClient(address=found)
    except Exception as error:  # noqa: BLE001  as above
        raise ConnectionError(f"what answers at {found} is no head of a Ray ({_in_one_line(error)})") from None
    return address


def _uses_tls() -> bool:
    return read_environment().get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _is_not_rays(name: str) -> bool:
    """The processes of a Ray of our own would inherit it, and show it to whoever may look at processes."""
    return is_private(name) and not name.startswith("RAY_")


def _in_one_line(error: Exception) -> str:
    """What Ray says, without the traceback that it may put behind that."""
    return " ".join(str(error).partition("Traceback")[0].split())[:MAX_WORDS]
