"""Nodes and gateways of two versions in one cluster: each gateway has its replicas where its own version is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from PIL import Image

from safelight.errors import ConfigurationError
from safelight.picture.generation import GenerationResult
from safelight.serving.backends.ray import replica, replicas
from safelight.serving.backends.ray.actor import ReplicaActor
from safelight.serving.backends.ray.cluster import RayCluster
from safelight.serving.backends.ray.frames import VERSION, Found, encode
from safelight.serving.backends.registry import find_factory
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.messages import PROTOCOL_VERSION
from safelight.settings import Settings
from tests.fakes import FakeEngineOptions, expected_pixels, fake_request, until
from tests.ray.cluster import NODE
from tests.ray.conftest import SharedCluster
from tests.ray.dispatchers import starting_gateway
from tests.versions import write_version
from tests.warm import cold

COLD = True
"""What runs on other nodes is not forked here: see `tests.warm`."""
OFFER = "Standard_Updated"
OTHER = f"9.9.9/{PROTOCOL_VERSION}"
"""Of a gateway and of nodes that have Safelight 9.9.9."""


@contextmanager
def node_offering(cluster: Any, **variables: str) -> Iterator[None]:
    """A node with places for the instance type."""
    with cold():
        node = cluster.add_node(**NODE | {"resources": {OFFER: 2}, "env_vars": variables})
    try:
        yield
    finally:
        cluster.remove_node(node)


def pixels_of(result: GenerationResult) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(result.images[0].content)))


def detail_of(dispatcher: Dispatcher) -> str:
    return dispatcher.snapshot().replicas[0].detail


@pytest.fixture
def as_other(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Until it is undone, what starts is a gateway of the other version."""
    for module in (replica, replicas):
        monkeypatch.setattr(module, "VERSION", OTHER)
    return monkeypatch


def test_replicas_go_where_their_gateways_version_is_and_wait_for_such_a_node_while_others_serve(
    shared_cluster: SharedCluster, nodes: RayCluster, tmp_path: Path, as_other: pytest.MonkeyPatch
) -> None:
    request = fake_request("a lamp")

    async def update() -> None:
        with node_offering(shared_cluster.cluster, PYTHONPATH=write_version(tmp_path, "9.9.9")):
            async with starting_gateway(nodes, "updated", instance_type=OFFER) as before:
                await until(lambda: before.is_ready)
                as_other.undo()
                as_other.setattr(replica, "PATIENCE_FOR_A_PLACE_S", 0.2)
                async with starting_gateway(nodes, "updated", instance_type=OFFER) as after:
                    await until(lambda: OTHER in detail_of(after))
                    assert f"with Safelight {VERSION} as this gateway (node" in detail_of(after)
                    assert not after.is_ready
                    pictures = [pixels_of(await before.generate(request))]

                    with node_offering(shared_cluster.cluster):
                        await until(lambda: after.is_ready)
                        pictures.append(pixels_of(await after.generate(request)))
                        assert all((each == expected_pixels(request, 7)).all() for each in pictures)
                        places = [each.snapshot().replicas[0].whereabouts["node"] for each in (before, after)]
                        assert len(set(places)) == 2

    asyncio.run(update())


def test_a_replica_that_finds_another_version_on_its_node_is_looked_for_anew(nodes: RayCluster, tmp_path: Path) -> None:
    """Its actor is of the version that was there when it began, and cannot start what is there now."""
    updated = tmp_path / "updated"

    async def update() -> tuple[str, str]:
        async with starting_gateway(nodes, "on-its-node", FakeEngineOptions(updated=str(updated))) as dispatcher:
            await until(lambda: dispatcher.is_ready)
            (member,) = dispatcher._replicas.members
            before = member._life
            updated.touch()
            os.kill(int(member.whereabouts["pid"]), signal.SIGKILL)
            await until(lambda: "restart the server, or Ray on" in detail_of(dispatcher))
            updated.unlink()
            await until(lambda: dispatcher.is_ready)
            return before, member._life

    before, after = asyncio.run(update())

    assert before != after


def test_an_actor_that_has_begun_anew_on_a_node_of_another_version_takes_nothing(nodes: RayCluster) -> None:
    async def begin() -> str:
        actor = nodes.find_or_create("begun-anew", nodes.place_for(replica.PlaceWish()))
        async with starting_gateway(nodes, "told") as dispatcher:
            (told,) = dispatcher._replicas.members
            begin = encode(structs.replace(told._begin, version=OTHER))
            life: str = await actor.load.remote("gateway", encode(Found("/nowhere", {})), begin, "")
        nodes.end(actor)
        return life

    assert asyncio.run(begin()) == ""


def test_other_versions_find_the_actor_by_this_name() -> None:
    assert (
        f"{ReplicaActor.__module__}.{ReplicaActor.__qualname__}" == "safelight.serving.backends.ray.actor.ReplicaActor"
    )


def test_a_ray_of_another_version_is_told_in_one_line_with_both(shared_cluster: SharedCluster) -> None:
    code = f"""
import ray
from safelight.errors import ConfigurationError
from safelight.serving.backends.registry import find_factory
from safelight.settings import Settings
mine, ray.__version__ = ray.__version__, "2.59.0"
try:
    find_factory(Settings(runtime="ray", ray_address={shared_cluster.address!r}))
except ConfigurationError as error:
    print(mine, error.message, sep="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    (told,) = done.stdout.splitlines()
    mine, _, message = told.partition("|")

    assert f"Version mismatch: The cluster was started with: Ray: {mine}" in message
    assert "was started with: Ray: 2.59.0 Python" in message
    assert "with the same Ray and Python on all machines" in message


def test_a_port_of_ray_that_is_not_its_heads_is_refused(shared_cluster: SharedCluster) -> None:
    port = shared_cluster.cluster.head_node.node_manager_port

    with pytest.raises(ConfigurationError, match=f"what answers at .*:{port} is no head of a Ray") as refusal:
        find_factory(Settings(runtime="ray", ray_address=f"127.0.0.1:{port}"))

    assert "\n" not in refusal.value.message
