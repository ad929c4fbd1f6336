"""The actor of a replica: on a node of the cluster, a replica as on one machine, for every gateway that asks.

Its process computes nothing. It owns the replica's own process (`LocalReplicas` of one), admits what that may run,
whichever gateway sent it, and keeps for each gateway what that has not fetched yet. A gateway that is silent has gone:
what it asked for is dropped. An actor that no gateway wants any more ends.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import ray
from msgspec import structs

from safelight.errors import ReplicaFull, SafelightError
from safelight.picture.generation import Completed, Event, Failed, Stage, Step
from safelight.serving.backends.local import LocalReplicas
from safelight.serving.backends.local_replica import COMMAND
from safelight.serving.backends.protocol import Replica, Replicas
from safelight.serving.backends.ray.frames import (
    VERSION,
    Begin,
    Found,
    Located,
    Status,
    begin_messages,
    encode,
    found_messages,
)
from safelight.serving.backends.ray.ledger import Ledger
from safelight.serving.counters import Counters
from safelight.serving.messages import Cancel, Happened, Submit, encode_frame, gateway_messages, split_frames

POLL_S = 5.0
"""How long a gateway that asks for news is kept waiting if there are none."""
SILENCE_S = 15.0
"""A gateway that has not asked for so long has gone."""
ALONE_S = 60.0
"""An actor that no gateway has asked anything for so long ends: one that has started again finds it until then."""
MAX_UNFETCHED_BYTES = 16 * 1024 * 1024
"""Of one gateway; events that may be missed are then missed, and the others wait."""

STEP_LINGER_S = 0.01

logger = logging.getLogger(__name__)


class ReplicaActor:
    """One replica. Every method but `load` answers at once, or within `POLL_S`.

    A node runs the class that its own Safelight has by this name, in this module: neither may be called otherwise in
    any version, nor may `locate`, by whose answer a gateway knows that a node has another one.
    """

    def __init__(self) -> None:
        self._replicas: Replicas | None = None
        self._max_running = 0
        self._life = secrets.token_hex(8)
        self._is_ending = False
        self._ledger = Ledger()
        self._gateways: dict[str, _Gateway] = {}
        self._last_asked_at = time.monotonic()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def locate(self) -> bytes:
        """A `Located`."""
        self._last_asked_at = time.monotonic()
        return encode(Located(VERSION, str(ray.get_runtime_context().get_node_id())))

    async def load(self, gateway: str, found: bytes, begin: bytes, past_life: str) -> str:
        """Begin to serve, unless it was begun, and know this gateway from now on.

        What it returns names this life of the actor, or is empty if that is over, or of another version: it may have
        begun on another node since it was located. `past_life` is the one that the gateway knew before, if any.
        """
        wanted = begin_messages.decode(begin)
        if self._is_ending or wanted.version != VERSION:
            return ""
        self._ledger.was_restarted |= past_life not in ("", self._life)
        self._gateways[gateway] = known = _Gateway()
        known.news.set()
        if self._replicas is None:
            self._replicas = self._create(wanted, found_messages.decode(found))
            self._max_running = wanted.launch.max_concurrent_requests
            await self._replicas.start()
        return self._life

    async def send(self, gateway: str, frames: bytes) -> bool:
        """Take what a gateway has to say; whether it is known here."""
        known = self._gateways.get(gateway)
        if known is None:
            return False
        for message in split_frames(frames, gateway_messages):
            match message:
                case Submit():
                    self._accept(known, message)
                case Cancel(ticket=ticket):
                    self._cancel(known, ticket)
                case _:
                    logger.error("a gateway sent %s; ignored", type(message).__name__)
        return True

    async def receive(self, gateway: str) -> bytes | None:
        """The frames that wait for a gateway, as soon as there are any; None if it is not known here."""
        known = self._gateways.get(gateway)
        if known is None:
            return None
        known.seen_at = self._last_asked_at = time.monotonic()
        return await known.fetch(lambda: self._status_for(known))

    async def leave(self, gateway: str) -> None:
        """A gateway needs the replica no more; with the last one it ends, and its process has when this returns."""
        self._drop(gateway)
        if not self._gateways:
            await self._end()

    def _create(self, wanted: Begin, found: Found) -> Replicas:
        load = wanted.launch.load
        loras = tuple(replace(each, file=found.loras[each.name]) for each in load.spec.loras)
        load = structs.replace(load, folder=found.folder, spec=replace(load.spec, loras=loras))
        replicas = LocalReplicas(replace(wanted.launch, load=load, num_replicas=1), command=wanted.command or COMMAND)
        replicas.on_change = self._wake
        return replicas

    @property
    def _num_running(self) -> int:
        return sum(len(gateway.running) for gateway in self._gateways.values())

    def _accept(self, gateway: _Gateway, submit: Submit) -> None:
        if self._num_running >= self._max_running:
            full = ReplicaFull("other gateways' requests have all places of the replica; send the request again later")
            gateway.put(Happened(submit.ticket, Failed(full)))
            return
        gateway.running[submit.ticket] = asyncio.create_task(self._run(gateway, submit))
        self._tell_places(gateway)

    def _cancel(self, gateway: _Gateway, ticket: int) -> None:
        """Its place is free at once: the replica drops it before it begins with what comes next."""
        task = gateway.running.pop(ticket, None)
        if task is not None:
            task.cancel()
            self._tell_places(gateway)

    async def _run(self, gateway: _Gateway, submit: Submit) -> None:
        last: Event | None = None
        try:
            async with aclosing(self._replica.stream(submit.request, age_s=submit.age_s)) as events:
                async for event in events:
                    if isinstance(event, Completed | Failed):
                        last = event
                    else:
                        await gateway.put_in_time(Happened(submit.ticket, event))
        except SafelightError as error:
            last = Failed(error)
        if last is not None and gateway.running.pop(submit.ticket, None) is not None:
            gateway.put(Happened(submit.ticket, last))
            self._tell_places(gateway)

    @property
    def _replica(self) -> Replica:
        assert self._replicas is not None
        return self._replicas.members[0]

    def _status_for(self, gateway: _Gateway) -> Status:
        assert self._replicas is not None
        replica = self._replica
        pid = replica.whereabouts.get("pid")
        gateway.counters += self._ledger.untold(self._replicas.counters)
        return Status(
            state=replica.state,
            error=replica.error,
            last_words=replica.last_words,
            plan=replica.plan,
            picture_s=replica.picture_s,
            pid=pid if isinstance(pid, int) else None,
            restarts=replica.restarts,
            counters=gateway.counters,
            num_elsewhere=self._num_running - len(gateway.running),
        )

    def _wake(self) -> None:
        """There is a new status."""
        for gateway in self._gateways.values():
            gateway.news.set()

    def _tell_places(self, of: _Gateway) -> None:
        """To the other gateways, if it matters to them; all else they hear with what they hear next."""
        for gateway in self._gateways.values():
            if gateway is not of and self._is_news_for(gateway):
                gateway.news.set()

    def _is_news_for(self, gateway: _Gateway) -> bool:
        """Whether the last place has been taken or left, or the places have changed by a quarter of all."""
        told, now = gateway.num_told_elsewhere, self._num_running - len(gateway.running)
        has_turned = (told >= self._max_running) != (now >= self._max_running)
        return has_turned or abs(now - told) >= max(1, self._max_running // 4)

    async def _keep(self) -> None:
        """Drop gateways that have gone, and end when nobody has asked for a while."""
        while time.monotonic() - self._last_asked_at < ALONE_S:
            await asyncio.sleep(1)
            for name, gateway in [*self._gateways.items()]:
                if time.monotonic() - gateway.seen_at > SILENCE_S:
                    self._drop(name)
        await self._end()

    def _drop(self, name: str) -> None:
        gateway = self._gateways.pop(name, None)
        for task in [] if gateway is None else [*gateway.running.values()]:
            task.cancel()
        self._wake()

    async def _end(self) -> None:
        self._is_ending = True
        if self._replicas is not None:
            await self._replicas.stop()
        myself = ray.get_runtime_context().current_actor
        asyncio.get_running_loop().call_later(0.1, partial(ray.kill, myself, no_restart=True))


@dataclass(slots=True, eq=False)
class _Gateway:
    """A gateway, what it runs here, and the frames that it has not fetched."""

    running: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    seen_at: float = field(default_factory=time.monotonic)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there are frames or a new status."""
    counters: Counters = field(default_factory=Counters)
    """What it was told of what the replica did."""
    _frames: list[bytearray] = field(default_factory=list)
    _told: Status | None = None
    _has_room: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def num_told_elsewhere(self) -> int:
        return 0 if self._told is None else self._told.num_elsewhere

    def put(self, message: Happened) -> None:
        """A step, or a stage of a trace, is no news for a moment: what comes right after it goes with it."""
        self._frames.append(encode_frame(message))
        if isinstance(message.event, Step | Stage):
            asyncio.get_running_loop().call_later(STEP_LINGER_S, self.news.set)
        else:
            self.news.set()

    async def put_in_time(self, message: Happened) -> None:
        """Wait for room first: for a gateway that is slow to fetch, the replica's events wait, and some are missed."""
        while sum(map(len, self._frames)) > MAX_UNFETCHED_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
        self.put(message)

    async def fetch(self, status: Callable[[], Status]) -> bytes:
        """All frames, after the status if that is news; waits for `POLL_S` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self.news.wait()
        self.news.clear()
        frames, self._frames, now = self._frames, [], status()
        self._has_room.set()
        if now != self._told:
            self._told = now
            frames.insert(0, encode_frame(now))
        return b"".join(frames)
