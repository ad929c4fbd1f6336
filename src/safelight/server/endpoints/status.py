"""What a server is doing now: every deployment's replicas, queue and pictures, for whoever looks after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastapi import APIRouter

from safelight.api.azure.wire import WORKSPACE
from safelight.api.dialect import JsonObject
from safelight.control.store.gateways import Standing
from safelight.server.endpoints.router import RoutedEndpoint
from safelight.server.endpoints.starter import ServedDeployment
from safelight.server.health import describe
from safelight.server.metrics import Place
from safelight.serving.counters import StageTime
from safelight.serving.dispatcher import Dispatcher

ReadStatus = Callable[[], JsonObject]
ReadLatency = Callable[[Place], JsonObject]
"""Requests for pictures that a deployment has answered: seconds -> those that took no longer."""


def create_router(read_status: ReadStatus) -> APIRouter:
    """Behind the administrator's token, as all of the control plane."""
    router = APIRouter(tags=["Workspace"])

    @router.get(WORKSPACE + "/status", summary="What this server is doing: replicas, queues, pictures since it started")
    async def status() -> JsonObject:
        return read_status()

    return router


def status_of(
    standing: Standing,
    own: Dispatcher,
    endpoints: Sequence[RoutedEndpoint[ServedDeployment]],
    dispatchers: Mapping[Place, Dispatcher],
    read_latency: ReadLatency,
) -> JsonObject:
    """The server's own model first, then every deployment, be it ready or not."""
    deployments = [
        {"endpoint": None, "name": None, "traffic": None, **_serving(own), "latency": read_latency(("", ""))}
    ]
    for endpoint in endpoints:
        names = {*endpoint.deployments, *(name for place, name in dispatchers if place == endpoint.name)}
        for name in sorted(names):
            place = (endpoint.name, name)
            told = {"endpoint": endpoint.name, "name": name, "traffic": endpoint.traffic.get(name, 0)}
            deployments.append({**told, **_serving(dispatchers.get(place)), "latency": read_latency(place)})
    gateways = None if standing.id is None or standing.alive is None else len(standing.alive)
    return {
        "gateway": {"role": "alone" if standing.id is None else standing.role.value, "gateways": gateways},
        "endpoints": [endpoint.name for endpoint in endpoints],
        "deployments": deployments,
    }


def _serving(dispatcher: Dispatcher | None) -> JsonObject:
    if dispatcher is None:
        return {"model": None, "ready": False, "replicas": [], "queued": 0, "running": 0, "pictures": 0}
    snapshot = dispatcher.snapshot()
    return {
        "model": dispatcher.spec.name,
        "ready": dispatcher.is_available,
        "replicas": [{**describe(each), "plan": each.plan} for each in snapshot.replicas],
        "queued": snapshot.queued,
        "running": snapshot.running,
        "pictures": snapshot.counters.stages.get("image_encode", StageTime()).count,
    }
