"""Processes that need not import what they are made of: each is forked off one that has, and is itself.

Importing torch, diffusers and transformers costs a replica two thirds of its life in these tests; a server, a command
and a fake replica pay their libraries most of theirs. Here `sitecustomize`, which Python imports first of all, has such
a process hand itself over to `forks`, pass signals on, and wait for what becomes of it. Whoever asks first has the
process behind it started, and all workers of a run share it. That everything starts without this is what those tests
show that are cold.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORKS = "WARM_FORKS"
"""The variable that names the folder of their sockets."""
OWNER = "WARM_OWNER"
"""And the one that names the process with which they end."""


def begin() -> None:
    """From now on what this process starts may be forked; nothing is started until somebody asks."""
    if sys.platform == "linux":
        # A socket has 107 characters for its path, and the folder of a run may have as many.
        os.environ[FORKS] = tempfile.mkdtemp(prefix="forks-", dir="/tmp")
        os.environ[OWNER] = str(os.getpid())
        old = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([old] if old else [])])


def end() -> None:
    shutil.rmtree(os.environ.get(FORKS, ""), ignore_errors=True)


@contextmanager
def cold() -> Iterator[None]:
    """What is started in the block is not forked, but starts as users start it."""
    kept = os.environ.pop(FORKS, None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ[FORKS] = kept
