"""A home of the test run's own: neither the tests nor what they start see anything of the machine that they run on."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import certifi

KEPT = re.compile(
    r"PATH|LANG|LC_\w+|TERM|CI|PYTHON\w+|PYTEST_\w+|LD_LIBRARY_PATH|VIRTUAL_ENV"
    r"|(OMP|GOMP|KMP|MKL|OPENBLAS|CUDA|NVIDIA)_\w+"
)
"""Of the environment: what finds programs, how Python runs, and the processor. No settings, no keys, no folders."""
FOLDERS = {
    "HOME": "home",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "XDG_RUNTIME_DIR": "run",
    "HF_HOME": "huggingface",
    "SPRITE_WORK": "sprite",
    "TMPDIR": "tmp",
}


CERTIFICATES = "SSL_CERT_FILE"
"""Who is trusted: one of those that everybody trusts. Nothing here meets any, and to read all takes a client 50 ms."""


def move_in() -> Path:
    """Point this process, and so all that it starts, to a new folder; what the environment said before is forgotten."""
    folder = Path(tempfile.mkdtemp(prefix="safelight-tests-"))
    for name in [name for name in os.environ if not KEPT.fullmatch(name)]:
        del os.environ[name]
    for name, part in FOLDERS.items():
        (folder / part).mkdir(mode=0o700)
        os.environ[name] = str(folder / part)
    first, end, _ = certifi.contents().partition("-----END CERTIFICATE-----\n")
    (folder / "certificates.pem").write_text(first + end)
    os.environ[CERTIFICATES] = str(folder / "certificates.pem")
    tempfile.tempdir = None  # it had been decided
    return folder


def move_out(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
