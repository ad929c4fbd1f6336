"""From settings to a dispatcher with its replicas, wherever these run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safelight.errors import ConfigurationError
from safelight.model.spec import ModelSpec
from safelight.picture.signing_certificate import read_content_credentials
from safelight.serving.backends.protocol import LOAD_TIMEOUT_S, MIN_PATIENCE_S, Launch, ReplicasFactory
from safelight.serving.dispatcher import Dispatcher
from safelight.serving.messages import Load
from safelight.serving.scaling import Scaling
from safelight.settings import DeploymentSettings, Settings, engine_options


def create_dispatcher(
    create_replicas: ReplicasFactory,
    settings: Settings,
    folder: Path,
    spec: ModelSpec,
    *,
    name: str = "",
    instance_type: str = "",
    deployment: DeploymentSettings | None = None,
    variables: Mapping[str, str] | None = None,
    load_timeout_s: float = LOAD_TIMEOUT_S,
    min_patience_s: float = MIN_PATIENCE_S,
) -> Dispatcher:
    """The dispatcher of one model, before replicas of its own; `start` it.

    A `deployment` decides for itself what the settings decide else. Of its environment `variables` the replicas see
    those that libraries read.
    Raises ConfigurationError if the settings name a certificate that cannot sign pictures, or for a path that cannot be
    told to a replica.
    """
    deployment = deployment or settings
    _check_paths(str(folder), *(lora.file for lora in spec.loras))
    load = Load(
        folder=str(folder),
        spec=spec,
        options=engine_options(settings, variables or {}),
        private_prompts=settings.private_prompts,
        credentials=read_content_credentials(settings),
        log_format=settings.log_format,
    )
    launch = Launch(
        name=name,
        instance_type=instance_type,
        load=load,
        num_replicas=deployment.replicas,
        max_concurrent_requests=deployment.max_concurrent_requests_per_instance,
        variables=variables or {},
        load_timeout_s=load_timeout_s,
        min_patience_s=min_patience_s,
    )
    return Dispatcher(
        create_replicas(launch),
        scaling=_scaling_of(deployment),
        max_queued_requests=deployment.max_queued_requests,
        max_queue_wait_s=deployment.max_queue_wait_s,
        hold_while_loading_s=settings.hold_while_loading_s,
        result_cache_bytes=deployment.result_cache_bytes,
        idle_unload_s=deployment.idle_unload,
    )


def _check_paths(*paths: str) -> None:
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"{path} has bytes in its name that are no UTF-8; rename it") from None


def _scaling_of(deployment: DeploymentSettings) -> Scaling | None:
    if deployment.max_replicas is None or deployment.max_replicas <= deployment.replicas:
        return None
    return Scaling(
        min_replicas=deployment.replicas,
        max_replicas=deployment.max_replicas,
        target_utilization=deployment.target_utilization,
        interval_s=deployment.scaling_interval_s,
    )
