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
from safelight.settings import DeploymentSettings, Settings, engine_options


def create_dispatcher(
    settings: Settings,
    folder: Path,
    spec: ModelSpec,
    *,
    deployment: DeploymentSettings | None = None,
    command: Sequence[str] = COMMAND,
    variables: Mapping[str, str] | None = None,
    load_timeout_s: float = LOAD_TIMEOUT_S,
    min_patience_s: float = MIN_PATIENCE_S,
) -> Dispatcher:
    """The dispatcher of one model with its replicas as processes on this machine; `start` it.

    A `deployment` decides for itself what the settings decide else. Of its environment `variables` the replicas see
    those that libraries read.
    Raises ConfigurationError if the settings name a certificate that cannot sign pictures.
    """
    deployment = deployment or settings
    num_threads = settings.num_threads or share_of_cores(deployment.replicas)
    load = Load(
        folder=str(folder),
        spec=spec,
        options=engine_options(settings, variables or {}, num_threads=num_threads),
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
        for index in range(deployment.replicas)
    ]
    return Dispatcher(
        spec,
        replicas,
        max_concurrent_requests_per_instance=deployment.max_concurrent_requests_per_instance,
        max_queued_requests=deployment.max_queued_requests,
        max_queue_wait_s=deployment.max_queue_wait_s,
        hold_while_loading_s=settings.hold_while_loading_s,
        result_cache_bytes=deployment.result_cache_bytes,
    )
