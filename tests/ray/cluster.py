"""A Ray cluster of several nodes in this machine, without a dashboard, and gateways as this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.warm import cold

OBJECT_STORE_BYTES = 80_000_000
NODE = {"num_cpus": 2, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}


@contextmanager
def ray_cluster(*nodes: Mapping[str, Any]) -> Iterator[Any]:
    """A head that runs nothing, and these nodes; all of it is gone at the end."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster  # noqa: PLC0415  seconds to import

    folder = tempfile.mkdtemp(prefix="safelight-ray-", dir="/tmp")  # the names of sockets must be short
    storage = {
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": f"{folder}/gcs",
    }  # what a restart of the head finds
    os.environ |= storage
    (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)  # where Cluster notes its address
    with cold():  # nothing that runs on nodes is forked here
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "temp_dir": folder})
    try:
        with cold():
            for node in nodes:
                cluster.add_node(**NODE | dict(node))
        yield cluster
    finally:
        cluster.shutdown()
        for name in storage:
            del os.environ[name]
        shutil.rmtree(folder, ignore_errors=True)


def what_shows(process: psutil.Process) -> str:
    """Command line and environment."""
    try:
        return f"{process.cmdline()} {process.environ()}"
    except psutil.Error:
        return ""
