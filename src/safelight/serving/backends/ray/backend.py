"""What the registry of backends knows of Ray."""

from __future__ import annotations

from safelight.errors import ConfigurationError
from safelight.serving.backends.protocol import Launch, ReplicasFactory
from safelight.settings import Settings


def create_factory(settings: Settings) -> ReplicasFactory:
    """Join the cluster that the settings name. Raises ConfigurationError."""
    try:
        from safelight.serving.backends.ray.cluster import RayCluster  # noqa: PLC0415  an extra may be missing
        from safelight.serving.backends.ray.replicas import RayReplicas  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"runtime ray needs {error.name}: pip install 'safelight[ray]'") from None
    cluster = RayCluster(settings)

    def create_replicas(launch: Launch) -> RayReplicas:
        return RayReplicas(launch, settings, cluster)

    return create_replicas
