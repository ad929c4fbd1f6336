"""Serving as the reconciler sees it: what starts replicas, what they are, and where requests find them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from safelight.control.endpoints.deployments import AppliedDeployment
from safelight.control.endpoints.logs import DeploymentLog
from safelight.control.endpoints.transactions import EndpointState
from safelight.model.catalog import Model


class Serving(Protocol):
    """The replicas of one deployment."""

    async def stop(self) -> None:
        """Finish what was admitted, then end."""


ServingT_co = TypeVar("ServingT_co", bound=Serving, covariant=True)
ServingT_contra = TypeVar("ServingT_contra", bound=Serving, contravariant=True)


class ReplicaStarter(Protocol[ServingT_co]):
    """What the reconciler asks of serving. Both raise SafelightError."""

    async def fetch(self, model: Model, environment: Mapping[str, str], log: DeploymentLog) -> Path:
        """The folder of a model that may have to be downloaded."""

    async def start(self, deployment: AppliedDeployment, log: DeploymentLog) -> ServingT_co:
        """Replicas that are ready to serve."""


class Routes(Protocol[ServingT_contra]):
    """Where requests find endpoints."""

    def publish(self, endpoint: EndpointState, serving: Mapping[str, ServingT_contra]) -> None:
        """From now on requests for the endpoint go to these deployments."""

    def remove(self, endpoint_name: str) -> None: ...
