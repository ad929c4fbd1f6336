"""Another place for replicas: threads of this process behind one handle, which knows them as a number.

It shows that one more backend takes a module and a line of the registry: no process, no socket, replicas that come
while requests wait, and a model that is not known before the first of them has loaded it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace

from safelight.errors import GenerationCancelled, ReplicaLost, SafelightError
from safelight.picture.generation import Event, GenerationRequest
from safelight.serving.backends.protocol import Launch, Replicas, ReplicasFactory, ReplicaState
from safelight.serving.backends.requests import RequestsInFlight, Ticket
from safelight.serving.counters import Counters
from safelight.serving.messages import Cancel, GatewayMessage, Happened, ReplicaMessage, Stats, Submit
from safelight.serving.replica.batcher import StepBatcher
from safelight.serving.replica.loop import EncodedImage, ReplicaLoop
from safelight.settings import Settings
from tests.fakes import FakeEngine
from tests.recipes import ORIGIN

LEARNED_NAME = "what the replica has loaded"


class _Ended(BaseException):
    """The thread is wanted no more."""


class _Inbox(queue.Queue[GatewayMessage | EncodedImage]):
    is_ended = False

    def get(self, block: bool = True, timeout: float | None = None) -> GatewayMessage | EncodedImage:
        message = super().get(block, timeout)
        if self.is_ended:
            raise _Ended
        return message


class ThreadReplicas:
    """One member that stands for all of them; `scale` says how many there are."""

    def __init__(self, launch: Launch) -> None:
        self.name, self.state = "replicas elsewhere", ReplicaState.STARTING
        self.error: SafelightError | None = None
        self.last_words, self.plan, self.picture_s = "", "", None
        self.restarts = 0
        self.spec = launch.load.spec
        self.on_change: Callable[[], None] = lambda: None
        self._launch = launch
        self._requests = RequestsInFlight()
        self._inboxes: list[_Inbox] = []
        self._threads: list[threading.Thread] = []
        self._owners: dict[Ticket, _Inbox] = {}
        self._counters: dict[int, Counters] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def members(self) -> tuple[ThreadReplicas]:
        return (self,)

    @property
    def num_places(self) -> int:
        return len(self._inboxes) * self._launch.max_concurrent_requests

    @property
    def whereabouts(self) -> Mapping[str, str | int]:
        return {"node": "elsewhere", "replicas": len(self._inboxes)}

    @property
    def counters(self) -> Counters:
        return sum(self._counters.values(), Counters())

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self.scale, self._launch.num_replicas)

    async def stop(self) -> None:
        self.state = ReplicaState.STOPPED
        self._requests.fail_all(GenerationCancelled("stopped"))
        for inbox in self._inboxes:
            inbox.is_ended = True
            inbox.put(Cancel(-1))
        await asyncio.gather(*(asyncio.to_thread(each.join) for each in self._threads))

    def scale(self, num_replicas: int) -> None:
        while len(self._inboxes) < num_replicas:
            inbox = _Inbox()
            self._inboxes.append(inbox)
            self._threads.append(threading.Thread(target=self._run, args=(len(self._inboxes), inbox), daemon=True))
            self._threads[-1].start()
        self.spec = replace(self.spec, description=LEARNED_NAME)
        self.state = ReplicaState.READY
        self.on_change()

    def stream(self, request: GenerationRequest, *, age_s: float) -> AsyncGenerator[Event, None]:
        if self.state is not ReplicaState.READY:
            raise ReplicaLost("ended")

        def submit(ticket: Ticket) -> None:
            self._owners[ticket] = self._inboxes[ticket % len(self._inboxes)]
            self._owners[ticket].put(Submit(ticket, request, age_s))

        return self._requests.stream(submit, lambda ticket: self._owners[ticket].put(Cancel(ticket)))

    def _run(self, number: int, inbox: _Inbox) -> None:
        assert self._loop is not None
        loop = self._loop

        def send(message: ReplicaMessage) -> None:
            loop.call_soon_threadsafe(self._take, number, message)

        try:
            ReplicaLoop(FakeEngine(), inbox, send, batcher=StepBatcher(max_batch_size=8), origin=ORIGIN).run()
        except _Ended:
            return

    def _take(self, number: int, message: ReplicaMessage) -> None:
        match message:
            case Happened():
                self._requests.pass_on(message.ticket, message.event)
            case Stats():
                self._counters[number] = message.counters


def create_factory(_: Settings) -> ReplicasFactory:
    return _create


def _create(launch: Launch) -> Replicas:
    return ThreadReplicas(launch)
