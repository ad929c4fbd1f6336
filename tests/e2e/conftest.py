"""What all end-to-end tests share: replicas that start in no time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import environment
from tests.live_server import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def _forks() -> Iterator[str]:
    """Where replicas are forked."""
    with tempfile.TemporaryDirectory(prefix="forks-") as folder:  # a socket's path is a short one
        path = Path(folder) / "socket"
        command = [sys.executable, "-m", "tests.e2e.warm.forks", str(path)]
        waiting = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(command, cwd=ROOT, env=environment(waiting), stdin=subprocess.PIPE) as process:
            eventually(lambda: path.exists() or process.poll() is not None)
            yield str(path)
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture(scope="module", autouse=True)
def _warm_replicas(request: pytest.FixtureRequest) -> Iterator[None]:
    """Replicas of this module's servers and commands are forked, unless it is COLD, or this is no Linux."""
    if sys.platform != "linux" or getattr(request.module, "COLD", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARM_REPLICAS", request.getfixturevalue("_forks"))
        patch.setenv("PYTHONPATH", str(ROOT / "tests/e2e/warm"), prepend=os.pathsep)
        yield
