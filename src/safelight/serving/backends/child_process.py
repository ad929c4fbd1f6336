"""One life of a replica's process: started with a socket and an end of standard error, and awaited at its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from safelight.serving.backends.line import Line
from safelight.serving.backends.standard_error import StandardError
from safelight.telemetry.log_lines import LogFormat

EXIT_TIMEOUT_S = 10.0


class Child:
    """A process, and our end of its socket."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        line: Line,
        stderr: StandardError,
    ) -> None:
        self.line = line
        self._process = process
        self._stderr = stderr

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """Below zero: the signal that ended it."""
        return self._process.returncode

    @property
    def last_words(self) -> str:
        """The end of what it has written to standard error."""
        return self._stderr.read_last()

    async def end(self) -> None:
        """Close the socket, and wait to the end, however often the waiting task is cancelled: no process stays."""
        self.line.abort()
        ending = asyncio.create_task(_end(self._process))
        is_cancelled = False
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                is_cancelled = True
        self._stderr.close()
        if is_cancelled:
            raise asyncio.CancelledError


@asynccontextmanager
async def spawned(
    command: Sequence[str], environment: Mapping[str, str], *, name: str, log_format: LogFormat
) -> AsyncIterator[Child]:
    """The running process, whose standard error is passed on under its `name`.

    When the block is left its socket is closed, and its end awaited. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        _, line = await asyncio.get_running_loop().create_unix_connection(Line, sock=ours)
        stderr = StandardError(name, log_format)
        try:
            process = await _spawn(command, environment, theirs.fileno(), stderr.child_end)
        except BaseException:
            line.abort()
            stderr.close()
            raise
        finally:
            os.close(stderr.child_end)
    child = Child(process, line, stderr)
    try:
        yield child
    finally:
        await child.end()


async def _spawn(
    command: Sequence[str], environment: Mapping[str, str], fd: int, stderr: int
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        "--fd",
        str(fd),
        pass_fds=(fd,),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    """A replica ends when its socket is closed; one that does not is killed."""
    try:
        async with asyncio.timeout(EXIT_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def manner_of(exit_status: int | None) -> str:
    """How a process ended, in words."""
    if exit_status is None or exit_status >= 0:
        return f"with status {exit_status}"
    return f"by {signal.Signals(-exit_status).name}"
