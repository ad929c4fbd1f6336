"""A replica as a child process, seen from the gateway: start it, talk to it, and start it again when it dies.

`_supervise` is the only task. It runs one life of the process after another: spawn, Hello, Load, Ready, then every
message goes to the request it belongs to (`RequestsInFlight`). Nothing here blocks the event loop or touches a tensor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from safelight.errors import (
    GenerationCancelled,
    ModelLoadError,
    OutOfMemory,
    Overloaded,
    ProtocolViolation,
    ReplicaLost,
    SafelightError,
    UnsupportedModel,
)
from safelight.model.memory.exhausted import OLD_AND_NEW, what_needs_less
from safelight.picture.generation import (
    Event,
    GenerationRequest,
)
from safelight.serving.backends.protocol import ReplicaState
from safelight.serving.backends.requests import RequestsInFlight
from safelight.serving.backends.standard_error import StandardError
from safelight.serving.counters import Counters
from safelight.serving.messages import (
    PROTOCOL_VERSION,
    Cancel,
    GatewayMessage,
    Happened,
    Hello,
    Load,
    LoadFailed,
    Planned,
    Ready,
    ReplicaMessage,
    Stats,
    Submit,
    encode_frame,
    read_message,
    replica_messages,
)

COMMAND = (sys.executable, "-m", "safelight.serving.replica.process")
HELLO_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 3600.0
EXIT_TIMEOUT_S = 10.0
MAX_BACKOFF_S = 30.0
STABLE_AFTER_S = 60.0
"""A replica that was ready for this long starts its back-off from the beginning."""
MAX_FIRST_LOADS = 3
"""Deaths before it was ever ready: a model that never loads is not tried for ever."""
MIN_PATIENCE_S = 300.0
"""A replica that leaves a message unanswered for longer, and for twice a request's timeout, hangs: it is replaced."""
MAX_UNSENT_BYTES = 16 * 1024 * 1024
"""A replica reads while it computes; so much is unsent only if clients come and leave faster than it can read."""

_OUT_OF_MEMORY = "as a system ends what needs more memory than there is"

M = TypeVar("M", Hello, Ready)

logger = logging.getLogger(__name__)


class LocalReplica:
    """One child process with one model. `command` gets `--fd N` appended; `environment` is all that the child sees."""

    def __init__(
        self,
        name: str,
        load: Load,
        *,
        environment: Mapping[str, str],
        command: Sequence[str] = COMMAND,
        first_backoff_s: float = 0.5,
        load_timeout_s: float = LOAD_TIMEOUT_S,
        min_patience_s: float = MIN_PATIENCE_S,
    ) -> None:
        self.name = name
        self.state = ReplicaState.STARTING
        self.error: SafelightError | None = None
        self.last_words = ""
        self.plan = ""
        self.picture_s: float | None = None
        self.pid: int | None = None
        self.restarts = 0
        self.on_change: Callable[[], None] = lambda: None
        self._load = load
        self._environment = environment
        self._command = command
        self._first_backoff_s = first_backoff_s
        self._load_timeout_s = load_timeout_s
        self._patience_s = min_patience_s
        self._unanswered_since: float | None = None
        self._past_lives = Counters()
        self._this_life = Counters()
        self._ready_at: float | None = None
        self._was_ready = False
        self._smaller = ""
        self._ran_out_of_memory = False
        self._deaths_in_a_row = 0
        self._requests = RequestsInFlight()
        self._writer: asyncio.StreamWriter | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def counters(self) -> Counters:
        return self._past_lives + self._this_life

    async def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervisor of {self.name}")

    async def stop(self) -> None:
        self._requests.fail_all(GenerationCancelled("the server is shutting down; send the request again elsewhere"))
        self._change(ReplicaState.STOPPED)
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    def stream(self, request: GenerationRequest, *, age_s: float) -> AsyncGenerator[Event, None]:
        if self.state is not ReplicaState.READY:  # it ended since it was chosen
            raise ReplicaLost(f"{self.name} ended before the request was sent to it; send the request again")
        if self._num_unsent_bytes() > MAX_UNSENT_BYTES:
            raise Overloaded(f"{self.name} has not read what was sent to it; send the request again later")
        self._patience_s = max(self._patience_s, 2 * request.timeout_s)
        return self._requests.stream(
            lambda ticket: self._send(Submit(ticket, request, age_s)), lambda ticket: self._send(Cancel(ticket))
        )

    def _num_unsent_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size() if self._writer is not None else 0

    def _send(self, message: GatewayMessage) -> None:
        """Without waiting; `stream` sees to it that what is unsent stays bounded."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode_frame(message))
            if self._unanswered_since is None:
                self._unanswered_since = asyncio.get_running_loop().time()

    def _change(self, state: ReplicaState) -> None:
        if state is not self.state:
            logger.info("%s is %s", self.name, state)
        self.state = state
        self.on_change()

    async def _supervise(self) -> None:
        while True:
            error = await self._live()
            self._bury(error)
            if self._is_beyond_help(error):
                self.error = self._final(error)
                self._change(ReplicaState.FAILED)
                return
            backoff_s = min(self._first_backoff_s * 2 ** (self._deaths_in_a_row - 1), MAX_BACKOFF_S)
            logger.warning("%s; starting it again in %g s", error.message, backoff_s)
            self._change(ReplicaState.STARTING)
            await asyncio.sleep(backoff_s)
            self.restarts += 1

    async def _live(self) -> SafelightError:
        """Run the process once, from its start to its end. Returns why it ended."""
        connection: _Connection | None = None
        self.last_words, self._ran_out_of_memory = "", False
        try:
            async with self._process() as connection:
                await self._load_model(connection.reader)
                return await self._relay(connection.reader)
        except EOFError:
            assert connection is not None
            doing = "serving" if self._ready_at is not None else "loading the model"
            status = connection.process.returncode
            ended = f"{self.name} ended {_manner_of(status)} while {doing}"
            self._ran_out_of_memory = status == -signal.SIGKILL or "MemoryError" in self.last_words
            if not self._ran_out_of_memory:
                return ReplicaLost(ended)
            why = f", {_OUT_OF_MEMORY}" if status == -signal.SIGKILL else " for want of memory"
            hint = "" if self._ready_at is not None else f". {OLD_AND_NEW}"
            return ReplicaLost(f"{ended}{why}; {what_needs_less(self._smaller)}{hint}")
        except OSError as error:
            return ReplicaLost(f"{self.name} cannot be started: {error}")
        except SafelightError as error:
            return error

    def _bury(self, error: SafelightError) -> None:
        now = asyncio.get_running_loop().time()
        was_stable = self._ready_at is not None and now - self._ready_at >= STABLE_AFTER_S
        self._deaths_in_a_row = 1 if was_stable else self._deaths_in_a_row + 1
        self._ready_at = None
        self._past_lives, self._this_life = self.counters, Counters()
        self.error = error
        if not isinstance(error, ReplicaLost):
            self.last_words = ""  # the error says it all
        self._requests.fail_all(ReplicaLost(f"{error.message}; send the request again"))

    def _is_beyond_help(self, error: SafelightError) -> bool:
        """A model that has never loaded here is not worth many tries, and none that found no memory; one that has is,
        while its files are.
        """
        if self._was_ready:
            return isinstance(error, UnsupportedModel)
        return not isinstance(error, ReplicaLost) or self._ran_out_of_memory or self._deaths_in_a_row >= MAX_FIRST_LOADS

    def _final(self, error: SafelightError) -> SafelightError:
        """Why the model is given up."""
        if not isinstance(error, ReplicaLost):
            return error
        if self._ran_out_of_memory:
            return OutOfMemory(error.message)
        return ModelLoadError(
            f"{error.message}, {MAX_FIRST_LOADS} times in a row; the server's log says more, and for a deployment "
            "`safelight online-deployment get-logs`"
        )

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[_Connection]:
        """The running process. When the block is left its socket is closed, and its end awaited."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            stderr = StandardError()
            try:
                process = await self._spawn(theirs.fileno(), stderr.child_end)
            except BaseException:
                writer.transport.abort()
                stderr.close()
                raise
            finally:
                os.close(stderr.child_end)
        try:
            self.pid, self._writer, self._unanswered_since = process.pid, writer, None
            yield _Connection(process, reader)
        finally:
            self.pid, self._writer = None, None
            if self.state is not ReplicaState.STOPPED:
                self._change(ReplicaState.STARTING)  # at once: nothing more may be sent to it
            writer.transport.abort()
            try:
                await _wait_for_exit(process)
            finally:
                stderr.close()
                self.last_words = stderr.read_last()

    async def _spawn(self, fd: int, stderr: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            "--fd",
            str(fd),
            pass_fds=(fd,),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )

    async def _load_model(self, reader: asyncio.StreamReader) -> None:
        silent = ReplicaLost(f"{self.name} said nothing within {HELLO_TIMEOUT_S:g} s")
        hello = _checked(await _receive(reader, timeout_s=HELLO_TIMEOUT_S, late=silent), Hello)
        if hello.version != PROTOCOL_VERSION:
            raise ProtocolViolation(
                f"{self.name} speaks version {hello.version} of the protocol, this server {PROTOCOL_VERSION}; "
                "Safelight was updated under it: restart the server"
            )
        self._change(ReplicaState.LOADING)
        self._send(self._load)
        slow = ModelLoadError(
            f"{self.name} did not load the model within {self._load_timeout_s:g} s; a deployment's readiness_probe may "
            "give it longer"
        )
        message = await _receive(reader, timeout_s=self._load_timeout_s, late=slow)
        if isinstance(message, Planned):
            self._tell_plan(message)
            message = await _receive(reader, timeout_s=self._load_timeout_s, late=slow)
        self.picture_s = _checked(message, Ready).picture_s
        self._was_ready, self._unanswered_since = True, None
        self._ready_at = asyncio.get_running_loop().time()
        self._change(ReplicaState.READY)

    def _tell_plan(self, message: Planned) -> None:
        if message.plan != self.plan:
            logger.info("%s: %s", self.name, message.plan)
        self.plan, self._smaller = message.plan, message.smaller
        self.on_change()

    async def _relay(self, reader: asyncio.StreamReader) -> NoReturn:
        """All that has come is passed on in one turn of the event loop, which may be a long one when many ask."""
        watching = asyncio.create_task(self._watch(reader), name=f"watch over {self.name}")
        try:
            while True:
                self._take(await read_message(reader, replica_messages))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """The reader raises ReplicaLost when the replica has stopped answering."""
        while self._silence_s() <= self._patience_s:  # noqa: ASYNC110  what does not come sets no event
            await asyncio.sleep(self._patience_s / 2)
        reader.set_exception(ReplicaLost(f"{self.name} did not answer for {self._silence_s():.0f} s"))

    def _take(self, message: ReplicaMessage) -> None:
        self._unanswered_since = None
        match message:
            case Happened():
                self._requests.pass_on(message.ticket, message.event)
            case Stats():
                self._this_life = message.counters
            case _:
                raise ProtocolViolation(f"{self.name} sent {type(message).__name__} after it was ready")

    def _silence_s(self) -> float:
        """How long a message has been unanswered; a replica that was asked nothing may be silent."""
        if self._unanswered_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._unanswered_since


@dataclass(frozen=True, slots=True)
class _Connection:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader


async def _receive(reader: asyncio.StreamReader, *, timeout_s: float, late: SafelightError) -> ReplicaMessage:
    """The next message. LoadFailed is raised as the error that it carries."""
    try:
        async with asyncio.timeout(timeout_s):
            message: ReplicaMessage = await read_message(reader, replica_messages)
    except TimeoutError:
        raise late from None
    if isinstance(message, LoadFailed):
        raise message.error
    return message


def _checked(message: ReplicaMessage, kind: type[M]) -> M:
    if not isinstance(message, kind):
        raise ProtocolViolation(f"a replica said {type(message).__name__} instead of {kind.__name__}")
    return message


async def _wait_for_exit(process: asyncio.subprocess.Process) -> None:
    """Wait to the end, even if the waiting task is cancelled meanwhile: no process is left behind."""
    ending = asyncio.create_task(_end(process))
    try:
        await asyncio.shield(ending)
    except asyncio.CancelledError:
        await ending
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """A replica ends when its socket is closed; one that does not is killed."""
    try:
        async with asyncio.timeout(EXIT_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _manner_of(returncode: int | None) -> str:
    if returncode is None or returncode >= 0:
        return f"with status {returncode}"
    return f"by {signal.Signals(-returncode).name}"
