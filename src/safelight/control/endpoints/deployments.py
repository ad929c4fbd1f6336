"""Deployments: their rules and their queries. `desired` is what was asked for last, `applied` what serves."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from safelight.control.endpoints.endpoints import check_location, check_name, get_endpoint
from safelight.control.endpoints.operations import begin_operation, error_code
from safelight.control.secrets.connections import record_read
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.tables import (
    Deployment,
    Endpoint,
    JsonValue,
    Operation,
    OperationKind,
    ProvisioningState,
    utc_now,
)
from safelight.errors import Conflict, InvalidRequest, NotReady, ResourceNotFound, SafelightError
from safelight.model.revision import hub_id_of

logger = logging.getLogger(__name__)

MAX_DEPLOYMENTS = 20
MAX_INSTANCES = 50
MAX_REQUEST_TIMEOUT_S = 180.0
MAX_MODEL_CHARACTERS = 4096
MAX_CONCURRENT_REQUESTS = 10_000
MAX_QUEUE_WAIT_S = 86_400.0
MAX_PROBE_S = 86_400.0
MAX_PROBE_THRESHOLD = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How long an instance may fail to answer. Nobody asks it: its silence is measured."""

    initial_delay_s: float = 10.0
    period_s: float = 10.0
    timeout_s: float = 2.0
    success_threshold: int = 1
    failure_threshold: int = 30

    def __post_init__(self) -> None:
        durations, thresholds = (self.period_s, self.timeout_s), (self.success_threshold, self.failure_threshold)
        if self.initial_delay_s < 0 or min(durations) < 1 or max(self.initial_delay_s, *durations) > MAX_PROBE_S:
            raise InvalidRequest(
                f"a probe's period and timeout must be 1 to {MAX_PROBE_S:g} s, its delay 0 to {MAX_PROBE_S:g} s",
                field="probe",
            )
        if min(thresholds) < 1 or max(thresholds) > MAX_PROBE_THRESHOLD:
            raise InvalidRequest(f"a probe's thresholds must be 1 to {MAX_PROBE_THRESHOLD}", field="probe")

    @property
    def patience_s(self) -> float:
        """From the first question without an answer to the timeout of the last one."""
        return (self.failure_threshold - 1) * self.period_s + self.timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetUtilization:
    """Azure's `scale_settings` of that type: as many instances as keep their places so full, between two bounds."""

    min_instances: int = 1
    max_instances: int = 1
    polling_interval_s: float = 1.0
    target_utilization_percentage: int = 70

    def __post_init__(self) -> None:
        if not 1 <= self.min_instances <= self.max_instances <= MAX_INSTANCES:
            raise InvalidRequest(
                f"scale_settings: min_instances and max_instances must be 1 to {MAX_INSTANCES}, the first not "
                "above the second",
                field="scale_settings",
            )
        if not 1 <= self.target_utilization_percentage <= 100:
            raise InvalidRequest(
                "scale_settings: target_utilization_percentage must be 1 to 100", field="scale_settings"
            )
        if not 1 <= self.polling_interval_s <= MAX_PROBE_S:
            raise InvalidRequest(
                f"scale_settings: polling_interval must be 1 to {MAX_PROBE_S:g} s", field="scale_settings"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """A deployment as it was asked for; valid once built. Stored as JSON."""

    model: str
    """The reference as it was written; `catalog.find_model` reads it."""
    instance_count: int = 1
    instance_type: str = ""
    description: str = ""
    environment_variables: dict[str, str] = field(default_factory=dict)
    """With secret references, never with what they stand for."""
    request_timeout_s: float = MAX_REQUEST_TIMEOUT_S
    max_concurrent_requests_per_instance: int = 1
    max_queue_wait_s: float | None = None
    """None: only the request's timeout bounds how long it waits, as on Azure, which does not use this any more."""
    scale_settings: TargetUtilization | None = None
    """None: instance_count, as Azure's `default`."""
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    app_insights_enabled: bool = False
    egress_public_network_access: str = "Enabled"
    unused_fields: list[str] = field(default_factory=list)
    """Asked for, and without a meaning here: not kept, but told."""

    def __post_init__(self) -> None:
        if not self.model:
            raise InvalidRequest("a deployment needs a model", field="model")
        if len(self.model) > MAX_MODEL_CHARACTERS:
            raise InvalidRequest(f"a model's URI has at most {MAX_MODEL_CHARACTERS} characters", field="model")
        if not 1 <= self.instance_count <= MAX_INSTANCES:
            raise InvalidRequest(
                f"instance_count must be 1 to {MAX_INSTANCES}, not {self.instance_count}", field="instance_count"
            )
        if not 0 < self.request_timeout_s <= MAX_REQUEST_TIMEOUT_S:
            raise InvalidRequest(
                f"request timeout must be above 0 and at most {MAX_REQUEST_TIMEOUT_S:g} s, not "
                f"{self.request_timeout_s:g}",
                field="request_timeout_ms",
            )
        if self.max_queue_wait_s is not None and not 0 < self.max_queue_wait_s <= MAX_QUEUE_WAIT_S:
            raise InvalidRequest(
                f"max_queue_wait must be above 0 and at most {MAX_QUEUE_WAIT_S:g} s", field="max_queue_wait_ms"
            )
        if not 1 <= self.max_concurrent_requests_per_instance <= MAX_CONCURRENT_REQUESTS:
            raise InvalidRequest(
                f"max_concurrent_requests_per_instance must be 1 to {MAX_CONCURRENT_REQUESTS}",
                field="max_concurrent_requests_per_instance",
            )

    @property
    def num_instances(self) -> int:
        """That there are at least."""
        return self.instance_count if self.scale_settings is None else self.scale_settings.min_instances

    @property
    def max_instances(self) -> int:
        return self.instance_count if self.scale_settings is None else self.scale_settings.max_instances

    @property
    def load_timeout_s(self) -> float | None:
        """How long a replica may take to load its model, if `readiness_probe` says so."""
        probe = self.readiness_probe
        return None if probe is None else probe.initial_delay_s + probe.patience_s

    @property
    def max_silence_s(self) -> float | None:
        """How long a replica may owe an answer, if `liveness_probe` says so.

        One that computes is silent between steps, so it is never replaced before twice the request timeout.
        """
        probe = self.liveness_probe
        return None if probe is None else max(probe.patience_s, 2 * self.request_timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentBody:
    """What a create or update carries beside the spec."""

    endpoint_name: str
    name: str
    spec: DeploymentSpec
    location: str = "local"
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("deployment", self.name)
        check_location(self.location)


def put_deployment(session: Session, body: DeploymentBody) -> tuple[Deployment, Operation]:
    """Create or update; the reconciler finishes the operation. Raises InvalidRequest, ResourceNotFound or Conflict."""
    endpoint = get_endpoint(session, body.endpoint_name)
    deployment = _find(session, endpoint, body.name)
    kind = OperationKind.CREATE if deployment is None else OperationKind.UPDATE
    operation = begin_operation(session, kind, endpoint.name, deployment.name if deployment else body.name)
    if deployment is None:
        _check_room(session, endpoint)
        deployment = Deployment(endpoint_name=endpoint.name, name=body.name)
        session.add(deployment)
    deployment.location = body.location
    deployment.tags = dict(body.tags)
    deployment.properties = dict(body.properties)
    deployment.desired = msgspec.to_builtins(body.spec)
    creating = kind is OperationKind.CREATE
    deployment.provisioning_state = ProvisioningState.CREATING if creating else ProvisioningState.UPDATING
    deployment.error_code = deployment.error_message = None
    deployment.updated_at = utc_now()
    session.flush()
    return deployment, operation


def delete_deployment(session: Session, endpoint_name: str, name: str) -> Operation | None:
    """Begin to delete; None if there is none. Raises Conflict while it takes traffic."""
    endpoint = get_endpoint(session, endpoint_name)
    deployment = _find(session, endpoint, name)
    if deployment is None:
        return None
    if endpoint.traffic.get(deployment.name) or endpoint.mirror_traffic.get(deployment.name):
        raise Conflict(
            f"deployment '{deployment.name}' takes traffic; move it first: safelight online-endpoint update --name "
            f"{endpoint.name} {_without_traffic(endpoint, deployment.name)}"
        )
    operation = begin_operation(session, OperationKind.DELETE, endpoint.name, deployment.name)
    deployment.provisioning_state = ProvisioningState.DELETING
    return operation


def _without_traffic(endpoint: Endpoint, name: str) -> str:
    """The option that takes the traffic from a deployment; what is left must still be 0 or 100 percent."""
    if endpoint.mirror_traffic.get(name):
        return f"--mirror-traffic {name}=0"
    others = [each for each in endpoint.traffic if each != name]
    return f"--traffic {others[0]}=100" if others else f"--traffic {name}=0"


def get_deployment(session: Session, endpoint_name: str, name: str) -> Deployment:
    """Raises ResourceNotFound."""
    endpoint = get_endpoint(session, endpoint_name)
    deployment = _find(session, endpoint, name)
    if deployment is None:
        raise ResourceNotFound(
            f"endpoint '{endpoint.name}' has no deployment '{name}'; see `safelight online-deployment list --endpoint "
            f"{endpoint.name}`"
        )
    return deployment


def list_deployments(session: Session, endpoint_name: str) -> Sequence[Deployment]:
    """Raises ResourceNotFound if there is no such endpoint."""
    endpoint = get_endpoint(session, endpoint_name)
    rows = select(Deployment).where(Deployment.endpoint_name == endpoint.name).order_by(Deployment.name)
    return session.scalars(rows).all()


def served_revision(deployment: Deployment) -> str | None:
    """The hub's commit that serves, or served last; None for a model that is a folder."""
    folder = deployment.applied_folder
    return Path(folder).name if folder is not None and hub_id_of(Path(folder)) else None


def desired_spec(deployment: Deployment) -> DeploymentSpec:
    """Raises NotReady, if it takes a newer version of Safelight to read it."""
    return _read_spec(deployment.desired)


def _read_spec(stored: JsonValue) -> DeploymentSpec:
    """What is false or empty in a field that this version does not have asks for nothing."""
    try:
        spec = msgspec.convert(stored, DeploymentSpec)
    except (msgspec.ValidationError, InvalidRequest) as error:
        raise _too_new(str(error)) from None
    if unread := _unread(stored, msgspec.to_builtins(spec)):
        raise _too_new(", ".join(unread))
    return spec


def _too_new(what: str) -> NotReady:
    return NotReady(
        f"a newer version of Safelight deployed it, with what this one does not know ({what}); update this gateway"
    )


def _unread(stored: JsonValue, read: JsonValue) -> list[str]:
    """The names of what was stored and is not read."""
    names = []
    for name, value in stored.items():
        known = read.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            names += [f"{name}.{each}" for each in _unread(value, known)]
        elif value and value != known:
            names.append(name)
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedDeployment:
    """A deployment that has been ready once, with all that is needed to bring it back without a network."""

    endpoint_name: str
    name: str
    spec: DeploymentSpec
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    applied_by: str | None = None
    """The operation's id."""

    @property
    def secret_variables(self) -> list[str]:
        """Those whose values are not what was written, but what a reference stands for."""
        written = self.spec.environment_variables
        return [name for name, value in self.environment.items() if written.get(name) != value]


def read_applied(
    session: Session, cipher: Cipher, *, reader: str, only: tuple[str, str] | None = None
) -> list[AppliedDeployment]:
    """What serves, or served when the server ended; that its secrets are read is in the audit log.

    `only` the deployment of this endpoint and name. What only a newer version can read is left out: the log says so.
    """
    rows = select(Deployment).where(Deployment.applied_folder.is_not(None))
    if only is not None:
        rows = rows.where(Deployment.endpoint_name == only[0], Deployment.name == only[1])
    deployments = []
    for row in session.scalars(rows):
        try:
            deployments.append(_applied(row, cipher))
        except NotReady as error:
            logger.error("deployment %s/%s: %s", row.endpoint_name, row.name, error.message)
    for each in deployments:
        for variable in each.secret_variables:
            source = f"deployment {each.endpoint_name}/{each.name}"
            record_read(session, reader=reader, source=source, part=f"environment/{variable}")
    return deployments


def record_applied(deployment: Deployment, cipher: Cipher, applied: AppliedDeployment) -> None:
    """From now on this is what a restart brings back."""
    deployment.applied = msgspec.to_builtins(applied.spec)
    deployment.applied_folder = str(applied.folder)
    deployment.applied_by = applied.applied_by
    deployment.encrypted_environment = cipher.encrypt(json.dumps(dict(applied.environment)))
    deployment.provisioning_state = ProvisioningState.SUCCEEDED
    deployment.error_code = deployment.error_message = None


def record_failure(deployment: Deployment, error: SafelightError) -> None:
    """What was applied before keeps serving."""
    deployment.provisioning_state = ProvisioningState.FAILED
    deployment.error_code = error_code(error)
    deployment.error_message = error.message


def _applied(row: Deployment, cipher: Cipher) -> AppliedDeployment:
    assert row.applied_folder is not None
    assert row.encrypted_environment is not None
    return AppliedDeployment(
        endpoint_name=row.endpoint_name,
        name=row.name,
        spec=_read_spec(row.applied or {}),
        folder=Path(row.applied_folder),
        environment=json.loads(cipher.decrypt(row.encrypted_environment)),
        applied_by=row.applied_by,
    )


def _check_room(session: Session, endpoint: Endpoint) -> None:
    count = session.scalar(
        select(func.count()).select_from(Deployment).where(Deployment.endpoint_name == endpoint.name)
    )
    if (count or 0) >= MAX_DEPLOYMENTS:
        raise Conflict(f"endpoint '{endpoint.name}' has {MAX_DEPLOYMENTS} deployments already; delete one first")


def _find(session: Session, endpoint: Endpoint, name: str) -> Deployment | None:
    return session.scalar(
        select(Deployment).where(Deployment.endpoint_name == endpoint.name, func.lower(Deployment.name) == name.lower())
    )
