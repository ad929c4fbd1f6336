"""What a gateway is doing now: every deployment's replicas, queue and pictures, for whoever looks after it."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from safelight.api.azure.wire import WORKSPACE
from safelight.api.dialect import JsonObject
from safelight.control.store.gateways import Standing
from safelight.server.endpoints.router import RoutedEndpoint
from safelight.server.endpoints.starter import ServedDeployment
from safelight.serving.counters import StageTime
from safelight.serving.dispatcher import Dispatcher

ReadStatus = Callable[[], JsonObject]


def create_router(read_status: ReadStatus) -> APIRouter:
    router = APIRouter(tags=["Workspace"])

    @router.get(
        WORKSPACE + "/status", summary="What this gateway is doing: replicas, queues, pictures since it started"
    )
    async def status() -> JsonObject:
        return read_status()

    return router


def status_of(
    standing: Standing, own: Dispatcher | None, endpoints: list[RoutedEndpoint[ServedDeployment]]
) -> JsonObject:
    """The server's own model first, then every deployment, be it ready or not."""
    deployments = [] if own is None else [{"endpoint": None, "name": None, "traffic": None, **_serving(own)}]
    for endpoint in endpoints:
        for name, deployment in sorted(endpoint.deployments.items()):
            deployments.append(
                {
                    "endpoint": endpoint.name,
                    "name": name,
                    "traffic": endpoint.traffic.get(name, 0),
                    **_serving(None if deployment is None else deployment.dispatcher),
                }
            )
    gateways = None if standing.id is None or standing.alive is None else len(standing.alive)
    return {
        "gateway": {"role": "alone" if standing.id is None else standing.role.value, "gateways": gateways},
        "endpoints": [endpoint.name for endpoint in endpoints],
        "deployments": deployments,
    }


def _serving(dispatcher: Dispatcher | None) -> JsonObject:
    if dispatcher is None:
        return {"model": None, "replicas": [], "queued": 0, "running": 0, "pictures": 0}
    snapshot = dispatcher.snapshot()
    return {
        "model": dispatcher.spec.name,
        "replicas": [{"name": each.name, "state": each.state, **each.whereabouts} for each in snapshot.replicas],
        "queued": snapshot.queued,
        "running": snapshot.running,
        "pictures": snapshot.counters.stages.get("image_encode", StageTime()).count,
    }
