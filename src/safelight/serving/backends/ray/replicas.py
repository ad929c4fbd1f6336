"""All replicas of one deployment in the cluster, as one gateway knows them.

An actor is called after what it serves and counted from 0: every gateway that is to serve the same, here or on another
machine, now or after a restart, comes to the same names, and so to the same actors. Nobody owns them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from huggingface_hub import get_token
from msgspec import structs

from safelight.control.secrets.secret_references import HUB_TOKEN
from safelight.library_variables import for_libraries
from safelight.model.spec import ModelSpec
from safelight.serving.backends.protocol import Launch
from safelight.serving.backends.ray.cluster import PlaceWish, RayCluster
from safelight.serving.backends.ray.frames import VERSION, Begin, Sources, encode, sources_of
from safelight.serving.backends.ray.replica import RayReplica
from safelight.serving.counters import Counters
from safelight.settings import EngineOptions, Settings, part_of

LOOK_AGAIN_S = 0.2


class RayReplicas:
    """`command`, if given, starts a replica's process in place of the usual one."""

    def __init__(self, launch: Launch, settings: Settings, cluster: RayCluster, *, command: Sequence[str] = ()) -> None:
        self.spec: ModelSpec = launch.load.spec
        self.on_change: Callable[[], None] = lambda: None
        self._cluster = cluster
        self._wish = PlaceWish(launch.instance_type, num_cpus=settings.ray_num_cpus, num_gpus=settings.ray_num_gpus)
        self._token = launch.variables.get(HUB_TOKEN) or get_token()
        self._sources = sources_of(launch.load)
        on_a_node = _on_a_node(launch, self._sources, settings)
        self._begin = Begin(version=VERSION, launch=on_a_node, command=tuple(command))
        self.members = tuple(self._create(index) for index in range(launch.num_replicas))
        self._is_started = False
        self._gone_counters = Counters()
        self._leaving: dict[RayReplica, asyncio.Task[None]] = {}

    @property
    def counters(self) -> Counters:
        return sum((each.counters for each in self.members), self._gone_counters)

    @property
    def num_running(self) -> int:
        return sum(each.num_running for each in self.members)

    @property
    def places_each(self) -> int:
        return self._begin.launch.max_concurrent_requests

    def scale(self, num_replicas: int) -> None:
        """The last ones go: every gateway counts them in the same order, so those that all need stay."""
        if not self._is_started:
            return  # the model has left memory: whoever brings it back starts as many as before
        for index, each in enumerate(self.members):
            each.is_leaving = index >= num_replicas
            if each.is_leaving and each not in self._leaving:
                self._leaving[each] = asyncio.create_task(self._let_go(each))
        for index in range(len(self.members), num_replicas):
            self.members = (*self.members, self._create(index))
            self.members[-1].start()
        self.on_change()

    async def start(self) -> None:
        self._is_started = True
        for each in self.members:
            each.start()

    async def stop(self) -> None:
        self._is_started = False
        for each, task in self._leaving.items():
            if each in self.members:
                task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        self._leaving.clear()
        await asyncio.gather(*(each.stop() for each in self.members))

    async def _let_go(self, replica: RayReplica) -> None:
        """When it has finished what it has of this gateway's, unless it is wanted again until then."""
        while replica.is_leaving and not replica.is_idle:  # noqa: ASYNC110  requests end without an event
            await asyncio.sleep(LOOK_AGAIN_S)
        if replica.is_leaving and replica is self.members[-1]:
            self._gone_counters += replica.counters
            self.members = self.members[:-1]
            await replica.stop()
        del self._leaving[replica]

    def _create(self, index: int) -> RayReplica:
        launch = self._begin.launch
        digest = hashlib.sha256(encode(self._begin)).hexdigest()[:16]
        return RayReplica(
            f"replica {index}",
            f"{launch.name or launch.load.spec.name}/{digest}/{index}",
            begin=self._begin,
            sources=self._sources,
            wish=self._wish,
            cluster=self._cluster,
            token=self._token,
            on_change=lambda: self.on_change(),
        )


def _on_a_node(launch: Launch, sources: Sources, settings: Settings) -> Launch:
    """What one actor is told: nothing that differs between gateways, and no secret but the one that signs pictures."""
    load, options = launch.load, launch.load.options
    num_threads = options.num_threads or max(1, int(settings.ray_num_cpus))
    loras = tuple(replace(each, file=str(sources.loras[each.name])) for each in load.spec.loras)
    load = structs.replace(
        load,
        folder=str(sources.model),
        spec=replace(load.spec, loras=loras),
        options=part_of(options, EngineOptions, num_threads=num_threads),
    )
    variables = dict(sorted(for_libraries(launch.variables).items()))
    return replace(launch, load=load, num_replicas=1, variables=variables)
