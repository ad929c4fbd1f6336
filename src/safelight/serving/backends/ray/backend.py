"""What the registry of backends knows of Ray."""

from __future__ import annotations

import os

from safelight.errors import ConfigurationError
from safelight.serving.backends.protocol import Launch, ReplicasFactory
from safelight.settings import Settings

_OF_RAY = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Nothing is told to anybody."""
_OF_OUR_OWN = {
    "RAY_worker_niceness": "0",  # replicas do not give way to all other work
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what is no cluster listens on loopback, on every system
}


def create_factory(settings: Settings) -> ReplicasFactory:
    """Join the cluster that the settings name, or start one on this machine alone. Raises ConfigurationError."""
    for name, value in (_OF_RAY | ({} if settings.ray_address else _OF_OUR_OWN)).items():
        os.environ.setdefault(name, value)  # Ray reads them when it is imported
    try:
        from safelight.serving.backends.ray.cluster import RayCluster  # noqa: PLC0415  an extra may be missing
        from safelight.serving.backends.ray.replicas import RayReplicas  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"runtime ray needs {error.name}: pip install 'safelight[ray]'") from None
    cluster = RayCluster(settings)

    def create_replicas(launch: Launch) -> RayReplicas:
        return RayReplicas(launch, settings, cluster)

    return create_replicas
