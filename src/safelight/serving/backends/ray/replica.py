"""A replica in the cluster, seen from one gateway: its actor is found or created by name, told what to load, and asked.

`_keep_up` is the only task. When the line to the actor breaks, because it, its node or the way there is gone, what was
in flight fails with ReplicaLost, which the dispatcher runs again elsewhere, and the actor is looked for anew: Ray has
started it again, on another node if need be.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from ray.exceptions import RayError

from safelight.errors import (
    DownloadError,
    GenerationCancelled,
    ModelLoadError,
    NotReady,
    Overloaded,
    ReplicaLost,
    SafelightError,
    UnsupportedModel,
)
from safelight.picture.generation import Event, GenerationRequest
from safelight.serving.backends.protocol import ReplicaState
from safelight.serving.backends.ray.cluster import Place, PlaceWish, RayCluster
from safelight.serving.backends.ray.frames import (
    PACKAGE,
    VERSION,
    Begin,
    Found,
    Located,
    Source,
    Sources,
    Status,
    encode,
    located_messages,
)
from safelight.serving.backends.ray.line import Line, answer_of
from safelight.serving.backends.requests import RequestsInFlight
from safelight.serving.counters import Counters
from safelight.serving.messages import Cancel, Happened, Submit, decode_message

FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 30.0
MAX_FIRST_LOSSES = 5
"""Before it was ever ready: then it is given up, and who waits for it is told."""
FIRST_RETRY_S = 60.0
MAX_RETRY_S = 600.0
"""What was given up is tried again, later and later: a disk may have room by then, or the hub be there."""
PATIENCE_FOR_A_PLACE_S = 10.0
"""How long a replica may wait for a node before it says so."""
LEAVE_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 5.0
FETCHER_TIMEOUT_S = 120.0
"""A fetcher is a process that has to start first; after that it answers within `fetcher.POLL_S`."""
MAX_UNSENT_BYTES = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


class RayReplica:
    """One actor. `token` is the hub's, for whoever fetches the weights on its node."""

    def __init__(
        self,
        name: str,
        actor_name: str,
        *,
        begin: Begin,
        sources: Sources,
        wish: PlaceWish,
        cluster: RayCluster,
        token: str | None,
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self.is_leaving = False
        """It is one too many, and gets nothing new."""
        self.whereabouts: Mapping[str, str | int] = {}
        self._actor_name = actor_name
        self._begin = begin
        self._sources = sources
        self._wish = wish
        self._place = Place()
        self._cluster = cluster
        self._token = token
        self._on_change = on_change
        self._status = Status()
        self._state = ReplicaState.STARTING
        self._error: SafelightError | None = None
        self._given_up_for: SafelightError | None = None
        """It was given up, and is failed until it is ready, though it may be tried again."""
        self._times_given_up = 0
        self._losses = 0
        self._losses_in_a_row = 0
        self._was_ready = False
        self._past_lives = Counters()
        self._requests = RequestsInFlight()
        self._actor: Any = None
        self._line: Line | None = None
        self._gateway = ""
        self._is_silent = False
        self._life = ""
        """Of the actor, as it was known last."""
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> ReplicaState:
        if self._given_up_for is not None and self._state is not ReplicaState.STOPPED:
            return ReplicaState.FAILED
        is_leaving = self.is_leaving and self._state is ReplicaState.READY
        return ReplicaState.DRAINING if is_leaving else self._state

    @property
    def error(self) -> SafelightError | None:
        return self._given_up_for or self._error

    @property
    def num_running(self) -> int:
        """Requests in it, other gateways' too."""
        return len(self._requests) + self._status.num_elsewhere

    @property
    def is_idle(self) -> bool:
        """Whether nothing of this gateway is in it."""
        return len(self._requests) == 0

    @property
    def num_places(self) -> int:
        return max(0, self._begin.launch.max_concurrent_requests - self._status.num_elsewhere)

    @property
    def last_words(self) -> str:
        return self._status.last_words

    @property
    def plan(self) -> str:
        return self._status.plan

    @property
    def picture_s(self) -> float | None:
        return self._status.picture_s

    @property
    def restarts(self) -> int:
        return self._losses + self._status.restarts

    @property
    def counters(self) -> Counters:
        return self._past_lives + self._status.counters

    def start(self) -> None:
        self._state, self._error, self._given_up_for = ReplicaState.STARTING, None, None
        self._times_given_up, self._losses_in_a_row, self._life = 0, 0, ""
        self._task = asyncio.create_task(self._keep_up(), name=f"line to {self.name}")

    async def stop(self) -> None:
        self._requests.fail_all(GenerationCancelled("the server is shutting down; send the request again elsewhere"))
        self._enter(ReplicaState.STOPPED)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._end_life()
        await self._leave()

    def stream(self, request: GenerationRequest, *, age_s: float) -> AsyncGenerator[Event, None]:
        line = self._line
        if line is None or self._state is not ReplicaState.READY:  # it ended since it was chosen
            raise ReplicaLost(f"{self.name} ended before the request was sent to it; send the request again")
        if line.num_unsent_bytes > MAX_UNSENT_BYTES:
            raise Overloaded(f"{self.name} has not read what was sent to it; send the request again later")
        return self._requests.stream(
            lambda ticket: line.send(Submit(ticket, request, age_s)), lambda ticket: line.send(Cancel(ticket))
        )

    async def _keep_up(self) -> None:
        """One life of the actor after another."""
        while True:
            self._error = await self._live_once()
            self._bury(self._error)
            if self._is_silent:
                await self._restart_if_it_hangs()
            self._losses_in_a_row += 1
            if not isinstance(self._error, ReplicaLost):
                await self._leave()  # one that has failed is not asked again: it ends, and another may be elsewhere
            if not self._is_beyond_help(self._error):
                if self._life or self._losses_in_a_row > 1:  # else it may be an actor that was ending as we came
                    logger.warning("%s; looking for it again", self._error)
                await asyncio.sleep(min(FIRST_BACKOFF_S * 2 ** min(self._losses_in_a_row - 1, 10), MAX_BACKOFF_S))
            else:
                self._give_up(self._error)
                if isinstance(self._error, UnsupportedModel):
                    return
                await asyncio.sleep(min(FIRST_RETRY_S * 2 ** min(self._times_given_up - 1, 10), MAX_RETRY_S))
            self._losses += self._life != ""

    def _is_beyond_help(self, error: SafelightError) -> bool:
        """What was ready once may be again: on a node that has room on its disk, or when the hub is there."""
        if self._was_ready:
            return isinstance(error, UnsupportedModel)
        return not isinstance(error, ReplicaLost)

    def _give_up(self, error: SafelightError) -> None:
        self._given_up_for = error
        self._times_given_up += 1
        logger.error("%s is given up: %s", self.name, error.message)
        self._on_change()

    def _why_lost(self, error: Exception) -> SafelightError:
        """An actor that is never reached is given up: its node may lack this version, or any."""
        reason = _last_line(error) or type(error).__name__
        if not self._was_ready and self._losses_in_a_row >= MAX_FIRST_LOSSES - 1:
            return ModelLoadError(
                f"{self.name} cannot be started on the cluster: {reason}; every node needs this version of Safelight, "
                "and room on the disk of Ray's logs"
            )
        return ReplicaLost(f"{self.name} cannot be reached any more ({reason})")

    async def _live_once(self) -> SafelightError:
        """From the actor's creation, or from where it is found, until it is lost. Returns why it was."""
        try:
            await self._live()
        except SafelightError as error:
            return error
        except (RayError, TimeoutError) as error:
            return self._why_lost(error)

    async def _live(self) -> NoReturn:
        self._place = await self._cluster.run(self._cluster.place_for, self._wish)
        node = await self._locate()
        loras = {name: await self._find(each, node) for name, each in self._sources.loras.items()}
        found = Found(await self._find(self._sources.model, node), loras)
        try:
            await self._converse(found, node)
        except TimeoutError:
            self._is_silent = True
            raise

    async def _converse(self, found: Found, node: str) -> NoReturn:
        """Raises TimeoutError if the actor answers nothing for too long."""
        self._gateway = secrets.token_hex(8)
        load = self._actor.load.remote(self._gateway, encode(found), encode(self._begin), self._life)
        life: str = await answer_of(load)
        if not life:
            raise ReplicaLost(f"{self.name} was about to end")
        self._life = life
        self._line = line = Line(self._actor, self._gateway)
        try:
            while True:
                for message in await line.receive():
                    self._take(message, node)
        finally:
            self._line = None
            await line.close()

    def _take(self, message: Happened | Status, node: str) -> None:
        if isinstance(message, Happened):
            self._requests.pass_on(message.ticket, message.event)
            return
        self._status, self._error = message, message.error
        self.whereabouts = {"node": node} | ({} if message.pid is None else {"pid": message.pid})
        if message.state is ReplicaState.FAILED:
            raise message.error or ModelLoadError(f"{self.name} could not load the model")
        if message.state is ReplicaState.READY:
            self._was_ready, self._losses_in_a_row = True, 0
            self._given_up_for, self._times_given_up = None, 0
        self._enter(message.state)

    async def _locate(self) -> str:
        """The node of the actor: one on a node of another version is replaced by one that is placed elsewhere."""
        while True:
            self._actor = await self._cluster.run(self._cluster.find_or_create, self._actor_name, self._place)
            located = await self._wait_for_place()
            if located.version == VERSION:
                return located.node
            logger.warning("%s: node %s has Safelight %s, not %s", self.name, located.node, located.version, VERSION)
            await self._cluster.run(self._cluster.leave_node, self._actor, located)
            await asyncio.sleep(FIRST_BACKOFF_S)

    async def _wait_for_place(self) -> Located:
        """Where the actor is; a cluster may have to grow for it."""
        located = asyncio.ensure_future(_awaited(self._actor.locate.remote()))
        try:
            async with asyncio.timeout(self._begin.launch.load_timeout_s):
                with suppress(TimeoutError):
                    async with asyncio.timeout(PATIENCE_FOR_A_PLACE_S):
                        return _located(await asyncio.shield(located))
                wanted = self._cluster.describe(self._place)
                self._error = NotReady(f"{self.name} waits for a node with room for it: {wanted}; see `ray status`")
                logger.warning("%s", self._error.message)
                self._on_change()
                return _located(await located)
        except TimeoutError:
            wanted = self._cluster.describe(self._place)
            raise ModelLoadError(f"no node of the cluster had room for {self.name}: {wanted}") from None
        finally:
            located.cancel()

    async def _restart_if_it_hangs(self) -> None:
        """It may be this process that stood still: then the replica serves others, and is only asked anew."""
        self._is_silent = False
        with suppress(RayError):
            try:
                await answer_of(self._actor.locate.remote(), PROBE_TIMEOUT_S)
            except TimeoutError:
                await self._cluster.run(self._cluster.restart, self._actor)

    async def _find(self, source: Source, node: str) -> str:
        """The path on a node, when it is there."""
        if source.hub_id is None:
            return str(PACKAGE / source.path)
        name = f"{source.hub_id}@{source.revision}/{source.path}"
        fetcher = await self._cluster.run(self._cluster.fetcher, name, node)
        while (fetched := await self._ask(fetcher, source)) is None:
            self._error = NotReady(f"{self.name} waits until its node has fetched {source.hub_id}")
            self._on_change()
        path, problem = fetched
        if problem:
            raise DownloadError(f"{problem} (on node {node})")
        return path

    async def _ask(self, fetcher: Any, source: Source) -> tuple[str, str] | None:
        fetching = fetcher.fetch.remote(source.hub_id, source.revision, source.path, self._token)
        try:
            answer: tuple[str, str] | None = await answer_of(fetching, FETCHER_TIMEOUT_S)
        except TimeoutError:
            await self._cluster.run(self._cluster.end, fetcher)
            raise
        return answer

    def _end_life(self) -> None:
        self._past_lives, self._status = self.counters, Status(last_words=self._status.last_words)
        self.whereabouts = {}

    def _bury(self, error: SafelightError) -> None:
        """Nothing more may be sent to it, before what was is run again."""
        self._end_life()
        self._enter(ReplicaState.STARTING)
        self._requests.fail_all(ReplicaLost(f"{error.message}; send the request again"))

    def _enter(self, state: ReplicaState) -> None:
        if state is not self._state:
            logger.info("%s is %s", self.name, state)
        self._state = state
        self._on_change()

    async def _leave(self) -> None:
        """The actor ends with the last gateway that leaves it; one that is gone already needs no word."""
        actor, self._actor = self._actor, None
        if actor is None:
            return
        with suppress(RayError, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await actor.leave.remote(self._gateway)


def _located(answer: bytes | str) -> Located:
    """An actor from before there were versions says its node alone."""
    return Located("an older version", answer) if isinstance(answer, str) else decode_message(answer, located_messages)


def _last_line(error: Exception) -> str:
    """What Ray says at the end: before it come tracebacks, and which worker it was."""
    return str(error).strip().rpartition("\n")[2].strip()[:200]


async def _awaited(reference: Any) -> Any:
    return await reference
