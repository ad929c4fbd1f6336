"""One cluster for all tests that leave it as it is, with a hub that its nodes know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from safelight.serving.backends.ray.cluster import RayCluster
from safelight.settings import Settings
from tests.checkpoint_files import write_checkpoint
from tests.fake_hub import FakeHub, fake_hub
from tests.ray.cluster import ray_cluster


@dataclass(frozen=True)
class SharedCluster:
    """Two nodes with two CPUs each, with disks of their own; one offers the instance type `Standard_Big`."""

    cluster: Any
    address: str
    hub: FakeHub
    homes: tuple[Path, Path]
    """`HF_HOME` of each node."""


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedCluster]:
    homes = (tmp_path_factory.mktemp("hf"), tmp_path_factory.mktemp("hf"))
    with fake_hub(write_checkpoint(tmp_path_factory.mktemp("hub") / "tiny")) as hub:
        first, second = ({"env_vars": {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint}} for home in homes)
        with ray_cluster(first, second | {"resources": {"Standard_Big": 1}}) as cluster:
            yield SharedCluster(cluster, cluster.address, hub, homes)


@pytest.fixture(scope="module")
def nodes(shared_cluster: SharedCluster) -> Iterator[RayCluster]:
    """This process is another node of the cluster."""
    yield RayCluster(Settings(runtime="ray", ray_address=shared_cluster.address))
    ray.shutdown()
