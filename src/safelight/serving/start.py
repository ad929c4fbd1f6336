"""From settings to a dispatcher with local replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safelight.environment import read_environment
from safelight.library_variables import for_libraries
from safelight.model.spec import ModelSpec
from safelight.picture.signing_certificate import read_content_credentials
from safelight.serving.backends.child_environment import child_environment, share_of_cores, visible_gpus
from safelight.serving.backends.local import COMMAND, LOAD_TIMEOUT_S, MIN_PATIENCE_S, LocalReplica
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.messages import Load
from safelight.settings import Settings


def create_dispatcher(
    settings: Settings,
    folder: Path,
    spec: ModelSpec,
    *,
    command: Sequence[str] = COMMAND,
    variables: Mapping[str, str] | None = None,
    load_timeout_s: float = LOAD_TIMEOUT_S,
    min_patience_s: float = MIN_PATIENCE_S,
) -> Dispatcher:
    """The dispatcher of one model with `settings.replicas` processes on this machine; `start` it.

    Of a deployment's environment `variables` the replicas see those that libraries read.
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
        lora_cache_bytes=settings.lora_cache_bytes,
        private_prompts=settings.private_prompts,
        credentials=read_content_credentials(settings),
    )
    environment = read_environment() | for_libraries(variables or {})
    gpus = visible_gpus(environment)
    replicas = [
        LocalReplica(
            f"replica {index}",
            load,
            environment=child_environment(environment, num_threads=num_threads, replica_index=index, gpus=gpus),
            command=command,
            load_timeout_s=load_timeout_s,
            min_patience_s=min_patience_s,
        )
        for index in range(settings.replicas)
    ]
    return Dispatcher(
        spec,
        replicas,
        max_concurrent_requests_per_instance=settings.max_concurrent_requests_per_instance,
        max_queued_requests=settings.max_queued_requests,
        max_queue_wait_s=settings.max_queue_wait_s,
        hold_while_loading_s=settings.hold_while_loading_s,
    )
