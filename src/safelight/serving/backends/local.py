"""Replicas as child processes of this machine, which share its cores and GPUs out between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from msgspec import structs

from safelight.environment import read_environment
from safelight.library_variables import for_libraries
from safelight.model.spec import ModelSpec
from safelight.serving.backends.child_environment import child_environment, share_of_cores, visible_gpus
from safelight.serving.backends.local_replica import COMMAND, LocalReplica
from safelight.serving.backends.protocol import Launch, ReplicasFactory
from safelight.serving.backends.supervisor import FIRST_BACKOFF_S
from safelight.serving.counters import Counters
from safelight.settings import EngineOptions, Settings, part_of


def create_factory(_: Settings) -> ReplicasFactory:
    """Nothing needs to be set for processes of this machine."""
    return LocalReplicas


class LocalReplicas:
    """As many as the launch says, each a process of its own. `command` gets `--fd N` appended."""

    def __init__(
        self, launch: Launch, *, command: Sequence[str] = COMMAND, first_backoff_s: float = FIRST_BACKOFF_S
    ) -> None:
        self.spec: ModelSpec = launch.load.spec
        self.on_change: Callable[[], None] = lambda: None
        num_threads = launch.load.options.num_threads or share_of_cores(launch.num_replicas)
        load = structs.replace(
            launch.load, options=part_of(launch.load.options, EngineOptions, num_threads=num_threads)
        )
        environment = read_environment() | for_libraries(launch.variables)
        gpus = visible_gpus(environment)
        self.members = tuple(
            LocalReplica(
                f"replica {index}",
                replace(launch, load=load),
                environment=child_environment(environment, num_threads=num_threads, replica_index=index, gpus=gpus),
                command=command,
                first_backoff_s=first_backoff_s,
                on_change=self._pass_on,
            )
            for index in range(launch.num_replicas)
        )

    @property
    def counters(self) -> Counters:
        return sum((each.counters for each in self.members), Counters())

    async def start(self) -> None:
        for each in self.members:
            each.start()

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in self.members))

    def _pass_on(self) -> None:
        self.on_change()
