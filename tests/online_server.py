"""A Safelight server with online endpoints over HTTPS, in a process of its own; its models are drawn by FakeEngine.

Run as a module it is that process: settings come from SAFELIGHT_* variables.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from safelight.server.app import create_app
from safelight.server.certificates import certificate_files
from safelight.server.endpoints.wiring import OnlineEndpoints
from safelight.server.http.listener import Server
from safelight.serving.backends.protocol import ReplicasFactory
from safelight.settings import Settings, load_settings
from tests.fakes import FakeDeployment, FakeEngineOptions, fake_dispatcher, fake_replicas, until

START_TIMEOUT_S = 120
STARTED = "Serving: "


@dataclass
class OnlineServer:
    """Where it is, and the process."""

    process: subprocess.Popen[str]
    pid: int
    """Its own: the process may be what forked it."""
    url: str
    data_dir: Path
    log: list[str] = field(default_factory=list)
    """What it has written to standard error since it started; all of it when the block is over."""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def admin_token(self) -> str:
        return (self.data_dir / "admin-token").read_text().strip()

    @property
    def certificate(self) -> Path:
        return self.data_dir / "tls-certificate.pem"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=60)


@contextmanager
def online_server(
    data_dir: Path, env: Mapping[str, str] | None = None, *, port: int = 0, by: Sequence[str] = ()
) -> Iterator[OnlineServer]:
    """Running when the block begins, gone when it ends; started again over the same `data_dir` it continues.

    `by` is the command that becomes the server's.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SAFELIGHT_", "HF_"))}
    settings = {
        "SAFELIGHT_DATA_DIR": str(data_dir),
        "SAFELIGHT_PORT": str(port),
        "SAFELIGHT_TLS": "true",
        "HF_HOME": str(data_dir / "hf"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    process = subprocess.Popen(
        [*by, sys.executable, "-m", "tests.online_server"],
        env=kept | settings | dict(env or {}),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    printed = ""
    for line in process.stderr:
        printed += line
        if STARTED in line:
            break
    else:
        process.wait()
        process.stderr.close()
        raise AssertionError(printed)
    pid, url = printed.rpartition(STARTED)[2].split()
    server = OnlineServer(process, int(pid), url, data_dir, printed.splitlines())
    reader = threading.Thread(target=server.log.extend, args=[process.stderr], daemon=True)
    reader.start()
    try:
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)
        reader.join(timeout=10)
        process.stderr.close()


def _replicas(settings: Settings, options: FakeEngineOptions) -> ReplicasFactory:
    if settings.runtime == "local":
        return fake_replicas(options)
    from tests.ray.fake_backend import fake_ray_replicas  # noqa: PLC0415  seconds to import

    return fake_ray_replicas(settings, options)


def main() -> None:
    settings = load_settings()
    gates = FakeEngineOptions(
        gate=os.environ.get("FAKE_ENGINE_GATE"),
        load_gate=os.environ.get("FAKE_ENGINE_LOAD_GATE"),
        kill_on_load=os.environ.get("FAKE_ENGINE_KILL_ON_LOAD"),
        plan=os.environ.get("FAKE_ENGINE_PLAN", ""),
        picture_s=float(os.environ["FAKE_ENGINE_PICTURE_S"]) if "FAKE_ENGINE_PICTURE_S" in os.environ else None,
        raise_on_load=os.environ.get("FAKE_ENGINE_RAISE_ON_LOAD"),
    )
    online = OnlineEndpoints(settings, _replicas(settings, gates))
    own_model = FakeDeployment(options=FakeEngineOptions(gate=os.environ.get("FAKE_ENGINE_OWN_GATE")))
    certificate, _ = certificate_files(settings)
    listener = socket.create_server(("127.0.0.1", settings.port))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    online.announce(url, certificate)

    async def serve() -> None:
        server = Server(create_app(settings, fake_dispatcher(own_model), online), settings)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started or serving.done())
        sys.stderr.write(f"{STARTED}{os.getpid()} {url}\n")
        sys.stderr.flush()
        await serving

    asyncio.run(serve())


if __name__ == "__main__":
    main()
