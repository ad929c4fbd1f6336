"""What the reconciler reads of the database and writes to it: each method blocks, and is one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from safelight.control.endpoints.deployments import (
    AppliedDeployment,
    DeploymentSpec,
    desired_spec,
    get_deployment,
    list_deployments,
    read_applied,
    record_applied,
    record_failure,
    served_revision,
)
from safelight.control.endpoints.endpoints import get_endpoint, list_endpoints
from safelight.control.endpoints.logs import DeploymentLogs
from safelight.control.endpoints.operations import (
    fail,
    get_open_operation,
    list_operations_in_progress,
    succeed,
)
from safelight.control.endpoints.registered_models import list_registered_models
from safelight.control.secrets.encryption import Cipher
from safelight.control.secrets.secret_references import GATED_MODEL_REFERENCE, HUB_TOKEN, resolve_references
from safelight.control.store.database import Database
from safelight.control.store.tables import Deployment, Endpoint, Operation, OperationKind, ProvisioningState
from safelight.errors import SafelightError, SecretsInjectionFailed
from safelight.model.catalog import Model, find_model
from safelight.model.revision import hub_id_of

RESTART = "restart of the server"
"""The reader that the audit log names when what served is brought back."""
OTHER_GATEWAY = "another gateway's deployment"
"""The same where it is started at this gateway too."""

EndpointMark = tuple[datetime, datetime, frozenset[str]]
"""When it was created and changed last, and the deployments that have been ready."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What is to serve, told so briefly that it can be asked for each second."""

    endpoints: Mapping[str, EndpointMark]
    deployments: Mapping[tuple[str, str], str | None]
    """The operation that applied each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointState:
    """What the data plane needs to know of an endpoint."""

    name: str
    created_at: datetime
    """Tells it from an earlier one of the name."""
    auth_mode: str
    keys: tuple[str, ...] = field(repr=False)
    token_key: str = field(repr=False)
    traffic: Mapping[str, int]
    mirror_traffic: Mapping[str, int]
    deployment_names: frozenset[str]
    """Those that have been ready once; while the server starts they may not be so yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A deployment whose model and secrets are known."""

    model: Model
    spec: DeploymentSpec
    environment: Mapping[str, str] = field(repr=False)


class Transactions:
    """Of one database."""

    def __init__(self, database: Database, cipher: Cipher, logs: DeploymentLogs) -> None:
        self._database = database
        self._cipher = cipher
        self._logs = logs

    def read_operations(self) -> Sequence[Operation]:
        with self._database.transaction() as session:
            return list_operations_in_progress(session)

    def read_endpoints(self) -> list[EndpointState]:
        with self._database.transaction() as session:
            return [self._state(session, endpoint) for endpoint in list_endpoints(session)]

    def read_endpoint(self, name: str) -> EndpointState:
        with self._database.transaction() as session:
            return self._state(session, get_endpoint(session, name))

    def read_what_served(self) -> list[AppliedDeployment]:
        """But not what is being deleted."""
        with self._database.transaction() as session:
            doomed = {
                (operation.endpoint_name, operation.deployment_name)
                for operation in list_operations_in_progress(session)
                if operation.kind is OperationKind.DELETE
            }
            return [
                each
                for each in read_applied(session, self._cipher, reader=RESTART)
                if not doomed & {(each.endpoint_name, each.name), (each.endpoint_name, None)}
            ]

    def read_marks(self) -> Marks:
        with self._database.transaction() as session:
            columns = (Deployment.endpoint_name, Deployment.name, Deployment.applied_by)
            rows = session.execute(select(*columns).where(Deployment.applied_folder.is_not(None))).all()
            endpoints = session.execute(select(Endpoint.name, Endpoint.created_at, Endpoint.updated_at)).all()
        names = {name: frozenset(each.name for each in rows if each.endpoint_name == name) for name, _, _ in endpoints}
        return Marks(
            {name: (created_at, updated_at, names[name]) for name, created_at, updated_at in endpoints},
            {(each.endpoint_name, each.name): each.applied_by for each in rows},
        )

    def read_to_follow(self, endpoint_name: str, name: str) -> AppliedDeployment | None:
        """What another gateway applied; None if it is gone again."""
        with self._database.transaction() as session:
            only = (endpoint_name, name)
            return next(iter(read_applied(session, self._cipher, reader=OTHER_GATEWAY, only=only)), None)

    def model_of(self, applied: AppliedDeployment) -> Model:
        """Its model at the commit that serves. Raises ModelNotFound."""
        with self._database.transaction() as session:
            model = find_model(applied.spec.model, list_registered_models(session))
        is_of_hub = model.hub_id is not None and model.hub_id == hub_id_of(applied.folder)
        return replace(model, revision=applied.folder.name) if is_of_hub else model

    def _state(self, session: Session, endpoint: Endpoint) -> EndpointState:
        decrypt = self._cipher.decrypt
        applied = (each.name for each in list_deployments(session, endpoint.name) if each.applied_folder is not None)
        return EndpointState(
            name=endpoint.name,
            created_at=endpoint.created_at,
            auth_mode=endpoint.auth_mode,
            keys=(decrypt(endpoint.encrypted_primary_key), decrypt(endpoint.encrypted_secondary_key)),
            token_key=decrypt(endpoint.encrypted_token_key),
            traffic=endpoint.traffic,
            mirror_traffic=endpoint.mirror_traffic,
            deployment_names=frozenset(applied),
        )

    def plan(self, endpoint_name: str, name: str) -> Plan:
        with self._database.transaction() as session:
            endpoint = get_endpoint(session, endpoint_name)
            deployment = get_deployment(session, endpoint_name, name)
            spec = desired_spec(deployment)
            model = _keep_revision(find_model(spec.model, list_registered_models(session)), spec, deployment)
            environment = dict(spec.environment_variables)
            if model.is_gated:
                environment.setdefault(HUB_TOKEN, GATED_MODEL_REFERENCE)
            reader = f"endpoint {endpoint.name}, deployment {name}"
            try:
                resolved = resolve_references(session, self._cipher, endpoint, environment, reader=reader)
                return Plan(model=model, spec=spec, environment=resolved)
            except SecretsInjectionFailed as error:
                failure = error  # raised below: what was read until then stays in the audit log
        raise failure

    def record_endpoint(self, operation: Operation) -> None:
        with self._database.transaction() as session:
            get_endpoint(session, operation.endpoint_name).provisioning_state = ProvisioningState.SUCCEEDED
            succeed(get_open_operation(session, operation.id))

    def record_deployment(self, operation: Operation, applied: AppliedDeployment) -> None:
        with self._database.transaction() as session:
            record_applied(get_deployment(session, applied.endpoint_name, applied.name), self._cipher, applied)
            succeed(get_open_operation(session, operation.id))

    def record_lost(self, applied: AppliedDeployment, error: SafelightError) -> None:
        with self._database.transaction() as session:
            deployment = get_deployment(session, applied.endpoint_name, applied.name)
            if _is_at_rest(deployment):
                record_failure(deployment, error)

    def record_found(self, applied: AppliedDeployment) -> None:
        """It serves, after a restart that had failed to bring it back."""
        with self._database.transaction() as session:
            deployment = get_deployment(session, applied.endpoint_name, applied.name)
            if _is_at_rest(deployment) and deployment.provisioning_state is ProvisioningState.FAILED:
                record_applied(deployment, self._cipher, applied)

    def record_failure(self, operation: Operation, error: SafelightError) -> None:
        endpoint_name, name = operation.endpoint_name, operation.deployment_name
        with self._database.transaction() as session:
            fail(get_open_operation(session, operation.id), error)
            if name is not None:
                record_failure(get_deployment(session, endpoint_name, name), error)
            else:
                get_endpoint(session, endpoint_name).provisioning_state = ProvisioningState.FAILED

    def forget_deployment(self, operation: Operation, name: str) -> None:
        with self._database.transaction() as session:
            session.delete(get_deployment(session, operation.endpoint_name, name))
            succeed(get_open_operation(session, operation.id))

    def forget_endpoint(self, operation: Operation) -> None:
        """With its deployments and their logs."""
        endpoint_name = operation.endpoint_name
        with self._database.transaction() as session:
            for deployment in list_deployments(session, endpoint_name):
                self._logs.of(endpoint_name, deployment.name).delete()
                session.delete(deployment)
            session.flush()
            session.delete(get_endpoint(session, endpoint_name))
            succeed(get_open_operation(session, operation.id))


def _is_at_rest(deployment: Deployment) -> bool:
    """Whether nothing else was asked for than what serves; if it was, how that stands is what is shown."""
    is_being_changed = deployment.provisioning_state in (ProvisioningState.UPDATING, ProvisioningState.DELETING)
    return deployment.desired == deployment.applied and not is_being_changed


def _keep_revision(model: Model, spec: DeploymentSpec, deployment: Deployment) -> Model:
    """An update that names the same model stays with the commit that serves, wherever the hub's branch is by now."""
    if deployment.applied is None or deployment.applied["model"] != spec.model:
        return model
    if model.hub_id is None or model.hub_id != hub_id_of(Path(str(deployment.applied_folder))):
        return model
    return replace(model, revision=served_revision(deployment))
