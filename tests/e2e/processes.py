"""The real `safelight` command in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SAFELIGHT = Path(sys.executable).with_name("safelight")
START_TIMEOUT_S = 240
FOREIGN = ("SAFELIGHT_", "HF_", "AZUREML_", "RAY_gcs_")
"""What a child must not see of our environment: settings of this machine, what azure-ai-ml leaves behind, and where the
cluster of other tests keeps what it knows.
"""


@dataclass
class Server:
    """A running `safelight serve` and what it has printed so far."""

    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def text(self) -> str:
        return "".join(self.output)

    def stop(self, *, timeout_s: float = 60) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=timeout_s)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child sees: ours, without any setting of the machine it runs on."""
    data_dir = tempfile.mkdtemp(prefix="safelight-e2e-")  # each server has its own: it holds a lock on it
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    ours = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "SAFELIGHT_DATA_DIR": data_dir}
    return kept | ours | dict(extra or {})


def run_safelight(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a `safelight` command to its end."""
    return subprocess.run(
        [str(SAFELIGHT), *arguments],
        env=environment(env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )


def start_server(
    *arguments: str, env: Mapping[str, str] | None = None, shell: str = "", inherited: Sequence[int] = ()
) -> subprocess.Popen[str]:
    """`safelight serve` on a free port, not waited for. `shell` is run before it, in its process."""
    command = ["sh", "-c", f'{shell}\nexec "$@"', "sh", str(SAFELIGHT), "serve", *arguments, "--port", "0"]
    return subprocess.Popen(
        command,
        env=environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=inherited,
    )


@contextmanager
def running_server(
    *arguments: str, env: Mapping[str, str] | None = None, shell: str = "", inherited: Sequence[int] = ()
) -> Iterator[Server]:
    """As `start_server`; ready when the block begins, gone when it ends."""
    process = start_server(*arguments, env=env, shell=shell, inherited=inherited)
    server = Server(process)
    is_serving = threading.Event()
    reader = threading.Thread(target=_read, args=(server, is_serving), daemon=True)
    reader.start()
    try:
        assert is_serving.wait(START_TIMEOUT_S), server.text
        assert server.url, server.text
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)
        reader.join(timeout=10)
        assert process.stdout is not None
        process.stdout.close()


def _read(server: Server, is_serving: threading.Event) -> None:
    assert server.process.stdout is not None
    for line in server.process.stdout:
        server.output.append(line)
        found = re.search(r"Serving .* at (https?://\S+)", line)
        if found:
            server.url = found[1]
            is_serving.set()
    is_serving.set()
