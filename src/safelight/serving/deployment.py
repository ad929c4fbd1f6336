"""From settings to a dispatcher with local replicas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safelight.model_spec import ModelSpec
from safelight.serving.child_environment import child_environment, share_of_cores, visible_gpus
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.local_replica import COMMAND, LocalReplica
from safelight.serving.messages import Load
from safelight.settings import Settings, read_environment
from safelight.signing_certificate import read_content_credentials


def create_dispatcher(
    settings: Settings, folder: Path, spec: ModelSpec, *, command: Sequence[str] = COMMAND
) -> Dispatcher:
    """The dispatcher of one model with `settings.replicas` processes on this machine; `start` it.

    Raises ConfigurationError if the settings name a certificate that cannot sign pictures.
    """
    num_threads = settings.num_threads or share_of_cores(settings.replicas)
    load = Load(
        folder=str(folder),
        spec=spec,
        device=settings.device,
        dtype=settings.dtype,
        num_threads=num_threads,
        max_batch_size=settings.max_batch_size,
        prompt_cache_bytes=settings.prompt_cache_bytes,
        private_prompts=settings.private_prompts,
        credentials=read_content_credentials(settings),
    )
    environment = read_environment()
    gpus = visible_gpus(environment)
    replicas = [
        LocalReplica(
            f"replica {index}",
            load,
            environment=child_environment(environment, num_threads=num_threads, replica_index=index, gpus=gpus),
            command=command,
        )
        for index in range(settings.replicas)
    ]
    return Dispatcher(
        spec,
        replicas,
        max_concurrent_requests_per_instance=settings.max_concurrent_requests_per_instance,
        max_queued_requests=settings.max_queued_requests,
    )
