"""A replica as a child process, seen from the gateway: what is said to it, and what is made of its answers.

In each life of the process (`Supervisor`) come Hello, Load, Ready, and then every message goes to the request that it
belongs to (`RequestsInFlight`). Nothing here blocks the event loop or touches a tensor.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

from safelight.errors import (
    GenerationCancelled,
    ModelLoadError,
    OtherVersion,
    Overloaded,
    ProtocolViolation,
    ReplicaLost,
    SafelightError,
)
from safelight.picture.generation import Event, GenerationRequest
from safelight.serving.backends.child_process import Child
from safelight.serving.backends.line import Line
from safelight.serving.backends.protocol import Launch, ReplicaState
from safelight.serving.backends.requests import RequestsInFlight
from safelight.serving.backends.supervisor import FIRST_BACKOFF_S, Supervisor
from safelight.serving.counters import Counters
from safelight.serving.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Happened,
    Hello,
    LoadFailed,
    Planned,
    Ready,
    ReplicaMessage,
    Stats,
    Submit,
)

COMMAND = (sys.executable, "-m", "safelight.serving.replica.process")
HELLO_TIMEOUT_S = 120.0
MAX_UNSENT_BYTES = 16 * 1024 * 1024
"""A replica reads while it computes; so much is unsent only if clients come and leave faster than it can read."""

M = TypeVar("M", Hello, Ready)

logger = logging.getLogger(__name__)


class LocalReplica:
    """One child process with one model. `environment` is all that the child sees."""

    def __init__(
        self,
        name: str,
        launch: Launch,
        *,
        environment: Mapping[str, str],
        command: Sequence[str] = COMMAND,
        first_backoff_s: float = FIRST_BACKOFF_S,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.num_places = launch.max_concurrent_requests
        self.plan = ""
        self.picture_s: float | None = None
        self._load = launch.load
        self._load_timeout_s = launch.load_timeout_s
        self._patience_s = launch.min_patience_s
        self._on_change = on_change
        self._past_lives = Counters()
        self._this_life = Counters()
        self._requests = RequestsInFlight()
        self._line: Line | None = None
        self._supervisor = Supervisor(
            name,
            command,
            environment,
            converse=self._converse,
            on_end=self._on_end,
            on_change=on_change,
            first_backoff_s=first_backoff_s,
            log_format=launch.load.log_format,
        )

    @property
    def state(self) -> ReplicaState:
        return self._supervisor.state

    @property
    def error(self) -> SafelightError | None:
        return self._supervisor.error

    @property
    def last_words(self) -> str:
        return self._supervisor.last_words

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts

    @property
    def whereabouts(self) -> Mapping[str, str | int]:
        child = self._supervisor.child
        return {} if child is None else {"pid": child.pid}

    @property
    def counters(self) -> Counters:
        return self._past_lives + self._this_life + Counters(replica_restarts=self.restarts)

    def start(self) -> None:
        self._supervisor.start()

    async def stop(self) -> None:
        self._end_life()
        self._requests.fail_all(GenerationCancelled("the server is shutting down; send the request again elsewhere"))
        await self._supervisor.stop()

    def stream(self, request: GenerationRequest, *, age_s: float) -> AsyncGenerator[Event, None]:
        line = self._line
        if line is None or self.state is not ReplicaState.READY:  # it ended since it was chosen
            raise ReplicaLost(f"{self.name} ended before the request was sent to it; send the request again")
        if line.num_unsent_bytes > MAX_UNSENT_BYTES:
            raise Overloaded(f"{self.name} has not read what was sent to it; send the request again later")
        self._patience_s = max(self._patience_s, 2 * request.timeout_s)
        return self._requests.stream(
            lambda ticket: line.send(Submit(ticket, request, age_s)), lambda ticket: line.send(Cancel(ticket))
        )

    async def _converse(self, child: Child) -> NoReturn:
        """All that has come is passed on in one turn of the event loop, which may be a long one when many ask."""
        line = self._line = child.line
        await self._load_model(line)
        watching = asyncio.create_task(self._watch(line), name=f"watch over {self.name}")
        try:
            while True:
                self._take(await line.receive())
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _load_model(self, line: Line) -> None:
        silent = ReplicaLost(f"{self.name} said nothing within {HELLO_TIMEOUT_S:g} s")
        hello = _checked(await _receive(line, timeout_s=HELLO_TIMEOUT_S, late=silent), Hello)
        if hello.version != PROTOCOL_VERSION:
            raise OtherVersion(
                f"{self.name} speaks version {hello.version} of the protocol, this server {PROTOCOL_VERSION}; "
                "Safelight was updated under it: restart the server, or Ray on the replica's node"
            )
        self._supervisor.enter(ReplicaState.LOADING)
        line.send(self._load)
        slow = ModelLoadError(
            f"{self.name} did not load the model within {self._load_timeout_s:g} s; a deployment's readiness_probe may "
            "give it longer"
        )
        message = await _receive(line, timeout_s=self._load_timeout_s, late=slow)
        if isinstance(message, Planned):
            self._tell_plan(message)
            message = await _receive(line, timeout_s=self._load_timeout_s, late=slow)
        self.picture_s = _checked(message, Ready).picture_s
        self._supervisor.enter(ReplicaState.READY)

    async def _watch(self, line: Line) -> None:
        """Whoever waits for a message gets ReplicaLost when the replica has stopped answering."""
        while line.silence_s <= self._patience_s:  # noqa: ASYNC110  what does not come sets no event
            await asyncio.sleep(self._patience_s / 2)
        line.give_up(ReplicaLost(f"{self.name} did not answer for {line.silence_s:.0f} s"))

    def _tell_plan(self, message: Planned) -> None:
        if message.plan != self.plan:
            logger.info("%s: %s", self.name, message.plan)
        self.plan, self._supervisor.smaller_plan = message.plan, message.smaller
        self._on_change()

    def _take(self, message: ReplicaMessage) -> None:
        match message:
            case Happened():
                self._requests.pass_on(message.ticket, message.event)
            case Stats():
                self._this_life = message.counters
            case _:
                raise ProtocolViolation(f"{self.name} sent {type(message).__name__} after it was ready")

    def _end_life(self) -> None:
        self._past_lives, self._this_life = self._past_lives + self._this_life, Counters()

    def _on_end(self, error: SafelightError) -> None:
        self._end_life()
        self._requests.fail_all(ReplicaLost(f"{error.message}; send the request again"))


async def _receive(line: Line, *, timeout_s: float, late: SafelightError) -> ReplicaMessage:
    """The next message. LoadFailed is raised as the error that it carries."""
    try:
        async with asyncio.timeout(timeout_s):
            message = await line.receive()
    except TimeoutError:
        raise late from None
    if isinstance(message, LoadFailed):
        raise message.error
    return message


def _checked(message: ReplicaMessage, kind: type[M]) -> M:
    if not isinstance(message, kind):
        raise ProtocolViolation(f"a replica said {type(message).__name__} instead of {kind.__name__}")
    return message
