"""The tables: desired state, what was last applied, and what happened. Secrets are in columns named `encrypted_…` only.

A change here needs a migration in `migrations/versions/`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import cast

from sqlalchemy import JSON, DateTime, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

JsonValue = dict[str, object]


class ProvisioningState(StrEnum):
    """Where a resource stands; Azure's words."""

    CREATING = "Creating"
    UPDATING = "Updating"
    DELETING = "Deleting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class OperationKind(StrEnum):
    """What an operation does to its resource."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class OperationStatus(StrEnum):
    """Where an operation stands; Azure's words."""

    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class JobState(StrEnum):
    """Where a job stands, as its owner reads it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def utc_now() -> datetime:
    return datetime.now(UTC)


class NewerWord(str):
    """A word that only a newer version of Safelight knows: shown as it is, and none of those that are known here."""

    __slots__ = ()

    @property
    def value(self) -> str:
        """As the words of an enumeration have it."""
        return str(self)


class Word(TypeDecorator[StrEnum]):
    """A column that holds one of these words as it is, and takes no others."""

    impl = String
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__(length=16)
        self.words = words

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else self.words(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:  # noqa: ARG002
        try:
            return None if value is None else self.words(value)
        except ValueError:
            return cast(StrEnum, NewerWord(value))


class Base(DeclarativeBase):
    """What all tables share."""

    type_annotation_map = {  # noqa: RUF012  read by SQLAlchemy
        datetime: UtcDateTime,
        dict[str, str]: JSON,
        dict[str, int]: JSON,
        JsonValue: JSON,
        ProvisioningState: Word(ProvisioningState),
        OperationKind: Word(OperationKind),
        OperationStatus: Word(OperationStatus),
        JobState: Word(JobState),
    }


class RegisteredModel(Base):
    """A model that the user registered: a folder or a hub id under a name and version."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    version: Mapped[str] = mapped_column(String(32), primary_key=True)
    path: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Connection(Base):
    """A named set of secrets. Only `encrypted_credentials` holds values."""

    __tablename__ = "connections"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    category: Mapped[str] = mapped_column(String(64))
    auth_type: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(Text)
    labels: Mapped[dict[str, str]]
    """Azure's `metadata`; that name is SQLAlchemy's."""
    is_shared: Mapped[bool]
    encrypted_credentials: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class Endpoint(Base):
    """An online endpoint as it was asked for."""

    __tablename__ = "endpoints"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    auth_mode: Mapped[str] = mapped_column(String(16))
    description: Mapped[str] = mapped_column(Text)
    location: Mapped[str] = mapped_column(String(64))
    tags: Mapped[dict[str, str]]
    properties: Mapped[dict[str, str]]
    traffic: Mapped[dict[str, int]]
    mirror_traffic: Mapped[dict[str, int]]
    public_network_access: Mapped[str] = mapped_column(String(16))
    encrypted_primary_key: Mapped[str] = mapped_column(Text)
    encrypted_secondary_key: Mapped[str] = mapped_column(Text)
    encrypted_token_key: Mapped[str] = mapped_column(Text)
    """Signs this endpoint's aml_tokens."""
    provisioning_state: Mapped[ProvisioningState]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class Deployment(Base):
    """A deployment: what was asked for last (`desired`), and what serves (`applied`)."""

    __tablename__ = "deployments"

    endpoint_name: Mapped[str] = mapped_column(ForeignKey("endpoints.name", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    location: Mapped[str] = mapped_column(String(64))
    tags: Mapped[dict[str, str]]
    properties: Mapped[dict[str, str]]
    desired: Mapped[JsonValue]
    """A `DeploymentSpec`."""
    applied: Mapped[JsonValue | None]
    """The `DeploymentSpec` that serves, or served last: what a restart brings back."""
    applied_folder: Mapped[str | None] = mapped_column(Text)
    """Where the applied model's files are; for a hub model its last part is the pinned revision."""
    applied_by: Mapped[str | None] = mapped_column(String(36))
    """The operation that applied it: by another one a gateway knows that its replicas are of yesterday."""
    encrypted_environment: Mapped[str | None] = mapped_column(Text)
    """The applied environment with its secrets in place, so that a restart depends on no connection."""
    provisioning_state: Mapped[ProvisioningState]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)


class Operation(Base):
    """A long-running operation. At most one is in progress on an endpoint: the database itself says so."""

    __tablename__ = "operations"
    __table_args__ = (
        Index(
            "one_operation_in_progress_per_endpoint",
            "endpoint_name",
            unique=True,
            sqlite_where=text("status = 'InProgress'"),
            postgresql_where=text("status = 'InProgress'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[OperationKind]
    endpoint_name: Mapped[str] = mapped_column(String(32))
    deployment_name: Mapped[str | None] = mapped_column(String(32))
    """None: the operation is on the endpoint itself."""
    status: Mapped[OperationStatus]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]


class SecretRead(Base):
    """One line of the audit log: who read which secret, and when. Never its value."""

    __tablename__ = "secret_reads"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    reader: Mapped[str] = mapped_column(String(255))
    connection_name: Mapped[str] = mapped_column(String(255))
    """Or `endpoint NAME`, or `deployment ENDPOINT/NAME`, which no connection can be called."""
    part: Mapped[str] = mapped_column(String(255))
    """Such as `credentials/HF_TOKEN`, `keys` of an endpoint, `environment/HF_TOKEN`, or `*` for all of it."""
    read_at: Mapped[datetime] = mapped_column(default=utc_now)


class SharedSecret(Base):
    """What all gateways of a database sign and check with, as each has it in a file of its own."""

    __tablename__ = "shared_secrets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    """The file's."""
    encrypted_value: Mapped[str] = mapped_column(Text)
    """In base64."""


class Job(Base):
    """A request that outlives its connection, and what it was answered with. No credential is in it."""

    __tablename__ = "jobs"
    __table_args__ = (UniqueConstraint("owner", "idempotency_key", name="one_job_per_idempotency_key"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64), index=True)
    """A keyed hash of the credential that it came with."""
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of the request: another one under the same Idempotency-Key is refused."""
    endpoint_name: Mapped[str | None] = mapped_column(String(32))
    """None: the server's own model."""
    request: Mapped[JsonValue]
    """A `StoredRequest` but for its body."""
    body: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    """Dropped when the job has ended."""
    num_bytes: Mapped[int]
    """Of what is stored: the body, later the answer's body."""
    state: Mapped[JobState]
    gateway_id: Mapped[int | None]
    """Of several gateways the one that the job waits, or runs, at."""
    num_lost: Mapped[int] = mapped_column(default=0)
    """How often the server or its replica ended while it ran."""
    answer: Mapped[JsonValue | None]
    """Status and headers of the answer."""
    answer_body: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    encrypted_webhook_url: Mapped[str | None] = mapped_column(Text)
    num_webhook_attempts: Mapped[int] = mapped_column(default=0)
    webhook_due_at: Mapped[datetime | None]
    """None: there is nothing to tell, not yet or not any more."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
