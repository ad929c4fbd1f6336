"""Long-running operations: what is being done to an endpoint, and how it ended.

The partial unique index on the table lets one operation at a time be in progress on an endpoint; the loser of two that
come together gets Conflict, whatever the timing.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from safelight.control.store.tables import Operation, OperationKind, OperationStatus, utc_now
from safelight.errors import (
    Conflict,
    DownloadError,
    InvalidRequest,
    ModelLoadError,
    ResourceNotFound,
    SafelightError,
    SecretsInjectionFailed,
)

_CODES: tuple[tuple[type[SafelightError], str], ...] = (
    (SecretsInjectionFailed, "SecretsInjectionError"),
    (DownloadError, "BadArgument"),
    (ModelLoadError, "BadArgument"),
    (InvalidRequest, "BadArgument"),
    (SafelightError, "ResourceNotReady"),
)


def begin_operation(
    session: Session, kind: OperationKind, endpoint_name: str, deployment_name: str | None = None
) -> Operation:
    """A new operation in progress. Raises Conflict if the endpoint has one already."""
    operation = Operation(
        id=str(uuid.uuid4()),
        kind=kind,
        endpoint_name=endpoint_name,
        deployment_name=deployment_name,
        status=OperationStatus.IN_PROGRESS,
    )
    session.add(operation)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(
            f"endpoint '{endpoint_name}' has an operation in progress; wait until it is done and try again"
        ) from None
    return operation


def check_idle(session: Session, endpoint_name: str) -> None:
    """Raises Conflict if an operation is in progress on the endpoint."""
    if _in_progress_on(session, endpoint_name) is not None:
        raise Conflict(f"endpoint '{endpoint_name}' has an operation in progress; wait until it is done and try again")


def get_operation(session: Session, id: str) -> Operation:
    """Raises ResourceNotFound."""
    operation = session.get(Operation, id)
    if operation is None:
        raise ResourceNotFound(f"no operation {id!r}")
    return operation


def get_open_operation(session: Session, id: str) -> Operation:
    """Locked, to be ended. Raises Conflict if another gateway, which took the lead meanwhile, has done so."""
    operation = session.get(Operation, id, with_for_update=True)
    if operation is None or operation.status is not OperationStatus.IN_PROGRESS:
        raise Conflict(f"operation {id} was carried out by another gateway")
    return operation


def list_operations_in_progress(session: Session) -> Sequence[Operation]:
    """Oldest first: what a restart takes up again."""
    in_progress = Operation.status == OperationStatus.IN_PROGRESS
    return session.scalars(select(Operation).where(in_progress).order_by(Operation.created_at)).all()


def succeed(operation: Operation) -> None:
    operation.status = OperationStatus.SUCCEEDED
    operation.finished_at = utc_now()


def fail(operation: Operation, error: SafelightError) -> None:
    operation.status = OperationStatus.FAILED
    operation.error_code = error_code(error)
    operation.error_message = error.message
    operation.finished_at = utc_now()


def error_code(error: SafelightError) -> str:
    """Azure's name for why a deployment failed."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def _in_progress_on(session: Session, endpoint_name: str) -> Operation | None:
    return session.scalar(
        select(Operation).where(
            Operation.endpoint_name == endpoint_name, Operation.status == OperationStatus.IN_PROGRESS
        )
    )
