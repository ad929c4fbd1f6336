"""Azure's online deployments: the resource and its logs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from safelight.api.azure.endpoints import ENDPOINTS
from safelight.api.azure.models import TEMPLATE_PROPERTY, refused_template
from safelight.api.azure.wire import (
    LOCATION,
    ArmModel,
    ArmPatch,
    JsonObject,
    Place,
    accepted,
    collection,
    documented,
    format_duration,
    parse_duration,
    place_of,
    read_body,
    system_data,
    with_operation,
    without_operation,
    workspace_path,
)
from safelight.control.endpoints.deployments import (
    DeploymentBody,
    DeploymentSpec,
    Probe,
    TargetUtilization,
    delete_deployment,
    desired_spec,
    get_deployment,
    list_deployments,
    put_deployment,
    served_revision,
)
from safelight.control.endpoints.logs import CONTAINERS, DEFAULT_TAIL, MAX_TAIL
from safelight.control.endpoints.warnings import UNUSED_FIELDS, warnings_for
from safelight.control.plane import ControlPlane
from safelight.control.store.tables import Deployment, Operation, OperationKind
from safelight.errors import InvalidRequest
from safelight.settings import Settings

DEPLOYMENTS = ENDPOINTS + "/{endpoint}/deployments"
DEPLOYMENT = DEPLOYMENTS + "/{name}"
_DEFAULTS = DeploymentSpec(model="-")


class Sku(ArmModel):
    """`capacity` is the instance count."""

    name: str = "Default"
    capacity: int | None = None


class RequestSettings(ArmModel):
    """Limits of a deployment; durations in ISO 8601."""

    max_concurrent_requests_per_instance: int | None = None
    max_queue_wait: str | None = Field(default=None, description="A request that waits longer for its place gets 429")
    request_timeout: str | None = Field(default=None, description="A request older than this gets 408; PT3M at most")


class ProbeSettings(ArmModel):
    """A probe; durations in ISO 8601."""

    initial_delay: str | None = None
    period: str | None = None
    timeout: str | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None


class ScaleSettings(ArmModel):
    """`Default`: the instance count is what was asked for; `TargetUtilization`: between the bounds, on a cluster."""

    scale_type: str = "Default"
    min_instances: int | None = None
    max_instances: int | None = None
    polling_interval: str | None = Field(default=None, description="PT1S by default")
    target_utilization_percentage: int | None = Field(default=None, description="70 by default")


class DeploymentProperties(ArmModel):
    """What a deployment is made of."""

    endpoint_compute_type: str = "Managed"
    scale_settings: ScaleSettings | None = None
    model: str | None = None
    instance_type: str | None = Field(
        default=None,
        description="A replica runs where a cluster's node offers a resource of that name; on one machine no effect",
    )
    description: str | None = None
    environment_variables: dict[str, str] | None = Field(
        default=None,
        description="HF_TOKEN fetches the model; what tunes the libraries reaches the replicas; the rest is warned of",
    )
    properties: dict[str, str] | None = None
    request_settings: RequestSettings | None = None
    liveness_probe: ProbeSettings | None = Field(default=None, description="How long a replica may owe an answer")
    readiness_probe: ProbeSettings | None = Field(
        default=None, description="How long a replica may take to load its model"
    )
    app_insights_enabled: bool | None = None
    egress_public_network_access: str | None = None
    code_configuration: object = None
    environment_id: object = None
    model_mount_path: object = None
    data_collector: object = None
    startup_probe: object = None
    deployment_template: object = None


class DeploymentResource(ArmModel):
    """The body of a PUT."""

    location: str | None = None
    tags: dict[str, str] | None = None
    sku: Sku | None = None
    properties: DeploymentProperties


class ChangedSku(ArmPatch):
    """`capacity` is the instance count."""

    name: Literal["Default", "default"] = "Default"
    capacity: int | None = None


class DeploymentPatch(ArmPatch):
    """The body of a PATCH: as on Azure all but these needs a PUT, and traffic is the endpoint's."""

    tags: dict[str, str] | None = None
    sku: ChangedSku | None = None


class LogsBody(ArmModel):
    """Which container's last lines."""

    container_type: str | None = None
    tail: int = Field(DEFAULT_TAIL, ge=0, le=MAX_TAIL)


def create_router(plane: ControlPlane, settings: Settings) -> APIRouter:
    """The routes of deployments."""
    router = APIRouter(tags=["Online deployments"])
    render = partial(_render, plane=plane, runtime=settings.runtime)

    @router.put(
        DEPLOYMENT,
        summary="Create or update a deployment",
        status_code=201,
        **documented(200, 201, 404, 409, body=DeploymentResource),
    )
    async def put(request: Request, endpoint: str, name: str) -> Response:
        body = _body(endpoint, name, await read_body(request, DeploymentResource, settings))
        place = place_of(request, settings)
        return begun(place, await plane.transact(lambda session: put_deployment(session, body)))

    @router.patch(
        DEPLOYMENT,
        summary="Change a deployment's tags or instance count",
        **documented(200, 404, 409, body=DeploymentPatch),
    )
    async def patch(request: Request, endpoint: str, name: str) -> Response:
        changes = await read_body(request, DeploymentPatch, settings)
        place = place_of(request, settings)
        return begun(
            place,
            await plane.transact(
                lambda session: put_deployment(session, _patched(get_deployment(session, endpoint, name), changes))
            ),
        )

    def begun(place: Place, written: tuple[Deployment, Operation]) -> Response:
        row, operation = written
        plane.wake()
        status = 201 if operation.kind is OperationKind.CREATE else 200
        properties = with_operation(row.properties, place, operation)
        return accepted(place, operation, render(place.path, row, properties), status=status)

    @router.get(DEPLOYMENT, summary="Show a deployment", **documented(200, 404))
    async def get(request: Request, endpoint: str, name: str) -> JsonObject:
        row = await plane.transact(lambda session: get_deployment(session, endpoint, name))
        return render(workspace_path(request), row)

    @router.get(DEPLOYMENTS, summary="List the deployments of an endpoint", **documented(200, 404))
    async def list_(request: Request, endpoint: str) -> JsonObject:
        rows = await plane.transact(lambda session: list_deployments(session, endpoint))
        return collection([render(workspace_path(request), row) for row in rows])

    @router.delete(DEPLOYMENT, summary="Delete a deployment", status_code=202, **documented(202, 204, 404, 409))
    async def delete(request: Request, endpoint: str, name: str) -> Response:
        place = place_of(request, settings)
        operation = await plane.transact(lambda session: delete_deployment(session, endpoint, name))
        if operation is None:
            return Response(status_code=204)
        plane.wake()
        return accepted(place, operation, None, status=202)

    _add_logs(router, plane, settings)
    return router


def _add_logs(router: APIRouter, plane: ControlPlane, settings: Settings) -> None:
    @router.post(
        DEPLOYMENT + "/getLogs", summary="The last lines of a deployment's logs", **documented(200, 404, body=LogsBody)
    )
    async def get_logs(request: Request, endpoint: str, name: str) -> JsonObject:
        body = await read_body(request, LogsBody, settings)
        container = next((each for each in CONTAINERS if each == body.container_type), None)
        if body.container_type is not None and container is None:
            raise InvalidRequest(f"containerType must be one of {', '.join(CONTAINERS)}", field="containerType")
        row = await plane.transact(lambda session: get_deployment(session, endpoint, name))
        log = plane.logs.of(row.endpoint_name, row.name)
        return {"content": await asyncio.to_thread(log.read, container, tail=body.tail)}

    @router.get(DEPLOYMENT + "/skus", summary="How far a deployment scales", **documented(200, 404))
    async def skus(endpoint: str, name: str) -> JsonObject:
        await plane.transact(lambda session: get_deployment(session, endpoint, name))
        capacity = {"default": 1, "minimum": 1, "maximum": 50, "scaleType": "Manual"}
        return collection([{"resourceType": DEPLOYMENTS, "sku": {"name": "Default"}, "capacity": capacity}])


def _body(endpoint: str, name: str, resource: DeploymentResource) -> DeploymentBody:
    properties = resource.properties
    if not properties.model:
        raise InvalidRequest("properties.model is missing; give the model's URI", field="model")
    if properties.endpoint_compute_type.lower() != "managed":
        raise InvalidRequest(
            f"endpointComputeType {properties.endpoint_compute_type!r} is not possible here; it must be Managed",
            field="endpointComputeType",
        )
    own_properties = without_operation(properties.properties)
    if properties.deployment_template or TEMPLATE_PROPERTY.lower() in map(str.lower, own_properties):
        raise refused_template("the deployment's own fields say how it is served")
    requests = properties.request_settings or RequestSettings()
    spec = DeploymentSpec(
        model=properties.model,
        instance_count=_given(resource.sku.capacity if resource.sku else None, 1),
        instance_type=properties.instance_type or "",
        description=properties.description or "",
        environment_variables=properties.environment_variables or {},
        request_timeout_s=_seconds(requests.request_timeout, "requestTimeout", _DEFAULTS.request_timeout_s),
        max_concurrent_requests_per_instance=_given(
            requests.max_concurrent_requests_per_instance, _DEFAULTS.max_concurrent_requests_per_instance
        ),
        max_queue_wait_s=(
            None if requests.max_queue_wait is None else parse_duration(requests.max_queue_wait, "maxQueueWait")
        ),
        scale_settings=_scale_settings(properties.scale_settings or ScaleSettings()),
        liveness_probe=_probe(properties.liveness_probe),
        readiness_probe=_probe(properties.readiness_probe),
        app_insights_enabled=bool(properties.app_insights_enabled),
        egress_public_network_access=properties.egress_public_network_access or "Enabled",
        unused_fields=[field for field in UNUSED_FIELDS if getattr(properties, field)],
    )
    return DeploymentBody(
        endpoint_name=endpoint,
        name=name,
        spec=spec,
        location=resource.location or LOCATION,
        tags=resource.tags or {},
        properties=own_properties,
    )


def _patched(row: Deployment, changes: DeploymentPatch) -> DeploymentBody:
    spec = desired_spec(row)
    if changes.sku is not None and changes.sku.capacity is not None:
        spec = replace(spec, instance_count=changes.sku.capacity)
    return DeploymentBody(
        endpoint_name=row.endpoint_name,
        name=row.name,
        spec=spec,
        location=row.location,
        tags=row.tags if changes.tags is None else changes.tags,
        properties=row.properties,
    )


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _seconds(text: str | None, field: str, default: float) -> float:
    return default if text is None else parse_duration(text, field)


def _scale_settings(settings: ScaleSettings) -> TargetUtilization | None:
    if settings.scale_type.lower() == "default":
        return None
    if settings.scale_type.lower() != "targetutilization":
        raise InvalidRequest(
            f"scaleSettings.scaleType {settings.scale_type!r} is not possible here; it must be Default or "
            "TargetUtilization",
            field="scaleSettings.scaleType",
        )
    default = TargetUtilization()
    least = _given(settings.min_instances, default.min_instances)
    return TargetUtilization(
        min_instances=least,
        max_instances=_given(settings.max_instances, least),
        polling_interval_s=_seconds(settings.polling_interval, "pollingInterval", default.polling_interval_s),
        target_utilization_percentage=_given(
            settings.target_utilization_percentage, default.target_utilization_percentage
        ),
    )


def _render_scale_settings(settings: TargetUtilization | None) -> JsonObject:
    """There always: azure-ai-ml cannot parse a deployment without it."""
    if settings is None:
        return {"scaleType": "Default"}
    return {
        "scaleType": "TargetUtilization",
        "minInstances": settings.min_instances,
        "maxInstances": settings.max_instances,
        "pollingInterval": format_duration(settings.polling_interval_s),
        "targetUtilizationPercentage": settings.target_utilization_percentage,
    }


def _probe(probe: ProbeSettings | None) -> Probe | None:
    if probe is None:
        return None
    default = Probe()
    return Probe(
        initial_delay_s=_seconds(probe.initial_delay, "initialDelay", default.initial_delay_s),
        period_s=_seconds(probe.period, "period", default.period_s),
        timeout_s=_seconds(probe.timeout, "timeout", default.timeout_s),
        success_threshold=_given(probe.success_threshold, default.success_threshold),
        failure_threshold=_given(probe.failure_threshold, default.failure_threshold),
    )


def _render(
    workspace: str, row: Deployment, properties: Mapping[str, str] | None = None, *, plane: ControlPlane, runtime: str
) -> JsonObject:
    spec = desired_spec(row)
    error = None if row.error_code is None else {"code": row.error_code, "message": row.error_message}
    return {
        "id": f"{workspace}/onlineEndpoints/{row.endpoint_name}/deployments/{row.name}",
        "name": row.name,
        "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments",
        "location": row.location,
        "tags": row.tags,
        "kind": "Managed",
        "sku": {"name": "Default", "capacity": spec.instance_count},
        "systemData": system_data(row.created_at, row.updated_at),
        "properties": {
            "endpointComputeType": "Managed",
            "model": spec.model,
            "instanceType": spec.instance_type or None,
            "description": spec.description or None,
            "environmentVariables": spec.environment_variables,
            "properties": row.properties if properties is None else properties,
            "requestSettings": {
                "maxConcurrentRequestsPerInstance": spec.max_concurrent_requests_per_instance,
                "requestTimeout": format_duration(spec.request_timeout_s),
                "maxQueueWait": None if spec.max_queue_wait_s is None else format_duration(spec.max_queue_wait_s),
            },
            "livenessProbe": _render_probe(spec.liveness_probe),
            "readinessProbe": _render_probe(spec.readiness_probe),
            "scaleSettings": _render_scale_settings(spec.scale_settings),
            "appInsightsEnabled": spec.app_insights_enabled,
            "egressPublicNetworkAccess": spec.egress_public_network_access,
            "provisioningState": row.provisioning_state.value,
            "provisioningError": error,
            "servedFrom": row.applied_folder,
            "servedRevision": served_revision(row),
            "warnings": warnings_for(spec, runtime=runtime),
            "replicas": plane.replicas_of(row.endpoint_name, row.name),
        },
    }


def _render_probe(probe: Probe | None) -> JsonObject | None:
    if probe is None:
        return None
    return {
        "initialDelay": format_duration(probe.initial_delay_s),
        "period": format_duration(probe.period_s),
        "timeout": format_duration(probe.timeout_s),
        "successThreshold": probe.success_threshold,
        "failureThreshold": probe.failure_threshold,
    }
