"""What all end-to-end tests share: replicas and commands that start in no time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.e2e import processes
from tests.e2e.processes import START_TIMEOUT_S, environment
from tests.e2e.warm.forks import IMPORTED
from tests.live_server import eventually

ROOT = Path(__file__).parents[2]
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "OPENBLAS_NUM_THREADS": "1"}
"""Read when torch is imported: what a replica finds in its own environment."""


@pytest.fixture(scope="session")
def _forks() -> Iterator[Mapping[str, str]]:
    """Where replicas and commands are forked."""
    # A socket has 107 characters for its path, and the folder of a run may have as many.
    with tempfile.TemporaryDirectory(prefix="forks-", dir="/tmp") as folder, ExitStack() as stack:
        places = {kind: Path(folder) / kind for kind in IMPORTED}
        for kind, path in places.items():
            command = [sys.executable, "-m", "tests.e2e.warm.forks", kind, str(path)]
            process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=environment(WAITING), stdin=PIPE))
            assert process.stdin is not None
            stack.callback(process.stdin.close)
        eventually(lambda: all(path.exists() for path in places.values()), timeout_s=2 * START_TIMEOUT_S)
        yield {kind: str(path) for kind, path in places.items()}


@pytest.fixture(scope="module", autouse=True)
def _warm(request: pytest.FixtureRequest) -> Iterator[None]:
    """What this module starts is forked, unless it is COLD, or this is no Linux."""
    if sys.platform != "linux" or getattr(request.module, "COLD", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        places = request.getfixturevalue("_forks")
        patch.setenv("WARM_REPLICAS", places["replica"])
        patch.setattr(processes, "WARM", {"WARM_COMMANDS": places["command"]})
        patch.setenv("PYTHONPATH", str(ROOT / "tests/e2e/warm"), prepend=os.pathsep)
        yield
