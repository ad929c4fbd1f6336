"""The backend of Ray, with replicas that draw with FakeEngine."""

from __future__ import annotations

from functools import partial

from safelight.serving.backends.protocol import ReplicasFactory
from safelight.serving.backends.ray.cluster import RayCluster
from safelight.serving.backends.ray.replicas import RayReplicas
from safelight.settings import Settings
from tests.fakes import FakeEngineOptions, fake_command


def fake_ray_replicas(settings: Settings, options: FakeEngineOptions | None = None) -> ReplicasFactory:
    """Joins the cluster that the settings name."""
    return partial(RayReplicas, settings=settings, cluster=RayCluster(settings), command=fake_command(options))
