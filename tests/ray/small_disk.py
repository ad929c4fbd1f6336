"""A node of a cluster on a disk of its own, which is small: a tmpfs in a namespace that any user may make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

OWN_DISK = ("unshare", "--user", "--map-root-user", "--mount")
MAY_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run([*OWN_DISK, "true"], capture_output=True, check=False).returncode == 0
)
MEGABYTES = 60
"""Ray's own files of a node are a few."""


@dataclass(frozen=True)
class SmallDisk:
    """As it is seen from outside."""

    root: Path

    @property
    def _filler(self) -> Path:
        return self.root / "filler"

    def fill(self) -> None:
        """Up to the last byte."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1024 * 1024, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def clear(self) -> None:
        self._filler.unlink()


@contextmanager
def node_on_small_disk(address: str, *, num_cpus: int) -> Iterator[SmallDisk]:
    """What it logs, and what its processes keep, is on that disk."""
    folder = tempfile.mkdtemp(prefix="small-", dir="/tmp")  # the names of sockets must be short
    ray = Path(sys.executable).with_name("ray")
    start = (
        f"mount -t tmpfs -o size={MEGABYTES}m tmpfs {folder} && exec {ray} start --block --address={address} "
        f"--temp-dir={folder}/ray --num-cpus={num_cpus} --object-store-memory=80000000"
    )
    process = subprocess.Popen(
        [*OWN_DISK, "sh", "-c", start],
        env=os.environ | {"HOME": folder, "TMPDIR": folder},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield SmallDisk(Path(f"/proc/{process.pid}/root{folder}"))
    finally:
        processes = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        process.terminate()
        _, left = psutil.wait_procs(processes, timeout=20)
        for each in left:
            each.kill()
        process.wait(timeout=20)
        Path(folder).rmdir()
