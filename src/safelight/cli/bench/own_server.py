"""A server for a model that is to be measured: `safelight serve` as a child, on a free port of loopback."""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


@asynccontextmanager
async def own_server(model: str, options: str) -> AsyncIterator[Target]:
    """A server that is ready. What it has to say goes to standard error. Raises ServerEnded."""
    with tempfile.TemporaryDirectory(prefix="safelight-bench-") as data_dir:
        given = ("--port", "0", "--data-dir", data_dir, "--log-level", "error", *_split(options))
        environment = {name: value for name, value in read_environment().items() if name.upper() not in _KEYS}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _RUN, "serve", model, *given, env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            yield await _wait_until_ready(process, model, Path(data_dir))
        finally:
            await _stop(process)


def _split(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as error:
        raise ConfigurationError(f"--serve-options cannot be read: {error}") from None


async def _wait_until_ready(process: asyncio.subprocess.Process, model: str, data_dir: Path) -> Target:
    """A model may be downloaded first, so no deadline but the server's own."""
    while True:
        if process.returncode is not None:
            raise ServerEnded(f"the server of {model} ended with {process.returncode}; what it said is above")
        try:
            address = read_address(data_dir)
            target = parse_target(address.url, certificate=address.certificate)
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


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
