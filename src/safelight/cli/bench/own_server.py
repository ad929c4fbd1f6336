"""A server for a model that is to be measured: `safelight serve` as a child, on a free port of loopback."""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from safelight.cli.bench.connections import Connections, NoAnswer
from safelight.cli.bench.target import Target, parse_target
from safelight.environment import read_environment
from safelight.errors import ConfigurationError, SafelightError
from safelight.server.address import read_address

POLL_S = 0.2
STOP_TIMEOUT_S = 30.0
_RUN = "from safelight.cli.main import main; main()"
_KEYS = ("SAFELIGHT_API_KEY", "SAFELIGHT_API_KEY_FILE")


class ServerEnded(SafelightError):
    """The server that was to be measured is not there any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnServer:
    """What is started, and what it is sent."""

    model: str
    options: str = ""
    """Of `safelight serve`, as a shell has them."""
    api_key: str | None = field(default=None, repr=False)
    extra: str | None = None


@asynccontextmanager
async def own_server(own: OwnServer) -> AsyncIterator[Target]:
    """A server that is ready. What it has to say goes to standard error. Raises ServerEnded."""
    with tempfile.TemporaryDirectory(prefix="safelight-bench-") as data_dir:
        given = ("--port", "0", "--data-dir", data_dir, "--log-level", "error", *_split(own.options))
        environment = {name: value for name, value in read_environment().items() if name.upper() not in _KEYS}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _RUN, "serve", own.model, *given, env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            yield await _wait_until_ready(process, own, Path(data_dir))
        finally:
            await stop_server(process)


def _split(options: str) -> list[str]:
    try:
        given = shlex.split(options)
    except ValueError as error:
        raise ConfigurationError(f"--serve-options cannot be read: {error}") from None
    if any(each.partition("=")[0] == "--data-dir" for each in given):
        raise ConfigurationError("--serve-options: --data-dir is a folder of this command's own; leave it out")
    return given


async def _wait_until_ready(process: asyncio.subprocess.Process, own: OwnServer, data_dir: Path) -> Target:
    """A model may be downloaded first, so no deadline but the server's own."""
    while True:
        if process.returncode is not None:
            raise ServerEnded(f"the server of {own.model} ended with {process.returncode}; what it said is above")
        try:
            address = read_address(data_dir)
            target = parse_target(address.url, api_key=own.api_key, extra=own.extra, certificate=address.certificate)
            if await _is_ready(target):
                return target
        except ConfigurationError:
            pass
        await asyncio.sleep(POLL_S)


async def _is_ready(target: Target) -> bool:
    connections = Connections(target, timeout_s=10)
    try:
        return (await connections.get("/health/ready")).status == 200
    except NoAnswer:
        return False
    finally:
        connections.close()


async def stop_server(process: asyncio.subprocess.Process) -> None:
    """Ask it to end, and see that it does."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait((asyncio.create_task(process.wait()),), timeout=STOP_TIMEOUT_S)
    finally:
        if process.returncode is None:  # it takes too long, or whoever waits for it was told not to
            process.kill()
            await process.wait()
