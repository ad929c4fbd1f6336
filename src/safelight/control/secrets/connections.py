"""Workspace connections: named secrets that are written, used by deployments, and shown to administrators only."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from safelight.control.secrets.encryption import Cipher
from safelight.control.store.tables import Connection, SecretRead, utc_now
from safelight.errors import InvalidRequest, ResourceNotFound

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,32}")
CUSTOM_KEYS = "CustomKeys"
API_KEY = "ApiKey"
MAX_PART_CHARACTERS = 255
MAX_CATEGORY_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSpec:
    """A connection as it was asked for, with its secrets."""

    name: str
    category: str = CUSTOM_KEYS
    auth_type: str = CUSTOM_KEYS
    target: str = "_"
    labels: Mapping[str, str] = field(default_factory=dict)
    is_shared: bool = True
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise InvalidRequest(
                f"connection name {self.name!r} is not possible: 3 to 33 letters, digits, - and _, the first one a "
                "letter or digit",
                field="name",
            )
        if len(self.category) > MAX_CATEGORY_CHARACTERS:
            raise InvalidRequest(f"a category has at most {MAX_CATEGORY_CHARACTERS} characters", field="category")
        if not self.credentials:
            raise InvalidRequest(
                f"connection {self.name!r} has no secret; give at least one KEY=VALUE", field="secrets"
            )
        if self.auth_type == API_KEY and set(self.credentials) != {"key"}:
            raise InvalidRequest(
                f"connection {self.name!r} has authType {API_KEY} and so the one secret `key`; for secrets by other "
                f"names use authType {CUSTOM_KEYS}",
                field="credentials",
            )
        for key, value in self.credentials.items():
            if not key or not value.strip():
                raise InvalidRequest(f"the secret {key!r} of connection {self.name!r} is empty", field="secrets")


def put_connection(session: Session, cipher: Cipher, spec: ConnectionSpec) -> Connection:
    """Create the connection, or replace it whole."""
    row = _find(session, spec.name)
    if row is None:
        row = Connection(name=spec.name)
        session.add(row)
    row.category = spec.category
    row.auth_type = spec.auth_type
    row.target = spec.target
    row.labels = dict(spec.labels)
    row.is_shared = spec.is_shared
    row.encrypted_credentials = cipher.encrypt(json.dumps(dict(spec.credentials)))
    row.updated_at = utc_now()
    session.flush()
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionChange:
    """What to change of a connection; None, and a secret that is not named, stay as they are."""

    category: str | None = None
    """Only what it is: neither it nor the authType can be changed."""
    auth_type: str | None = None
    target: str | None = None
    labels: Mapping[str, str] | None = None
    is_shared: bool | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


def change_connection(
    session: Session, cipher: Cipher, name: str, change: ConnectionChange, *, reader: str
) -> Connection:
    """Change a connection; its secrets are read for that, so it is in the audit log.

    Raises ResourceNotFound or InvalidRequest.
    """
    row, secrets = read_secrets(session, cipher, name, reader=reader)
    for kind, wanted, now in (
        ("category", change.category, row.category),
        ("authType", change.auth_type, row.auth_type),
    ):
        if wanted not in (None, now):
            raise InvalidRequest(
                f"the {kind} of connection {row.name!r} is {now} and cannot be changed; create another connection",
                field=kind,
            )
    spec = ConnectionSpec(
        name=row.name,
        category=row.category,
        auth_type=row.auth_type,
        target=row.target if change.target is None else change.target,
        labels=row.labels if change.labels is None else change.labels,
        is_shared=row.is_shared if change.is_shared is None else change.is_shared,
        credentials=secrets | dict(change.credentials),
    )
    return put_connection(session, cipher, spec)


def get_connection(session: Session, name: str) -> Connection:
    """Raises ResourceNotFound."""
    row = _find(session, name)
    if row is None:
        raise ResourceNotFound(f"no connection {name!r}; see `safelight connection list`")
    return row


def list_connections(session: Session) -> Sequence[Connection]:
    return session.scalars(select(Connection).order_by(Connection.name)).all()


def delete_connection(session: Session, name: str) -> bool:
    """Whether there was one. Deployments that use it keep the values they were deployed with."""
    row = _find(session, name)
    if row is not None:
        session.delete(row)
    return row is not None


def read_credentials(
    session: Session, cipher: Cipher, connection: Connection, *, reader: str, part: str
) -> dict[str, str]:
    """The secret values; that they were read, by whom, goes into the audit log in the same transaction."""
    record_read(session, reader=reader, source=connection.name, part=part)
    credentials: dict[str, str] = json.loads(cipher.decrypt(connection.encrypted_credentials))
    return credentials


def record_read(session: Session, *, reader: str, source: str, part: str) -> None:
    """A line of the audit log. `source` is a connection, `endpoint NAME` or `deployment ENDPOINT/NAME`."""
    session.add(SecretRead(reader=reader, connection_name=source, part=part[:MAX_PART_CHARACTERS]))


def read_secrets(session: Session, cipher: Cipher, name: str, *, reader: str) -> tuple[Connection, dict[str, str]]:
    """A connection with all its secrets, read by `reader`. Raises ResourceNotFound."""
    connection = get_connection(session, name)
    return connection, read_credentials(session, cipher, connection, reader=reader, part="*")


@dataclass(frozen=True, slots=True)
class AuditLine:
    """Who read what, when."""

    read_at: datetime
    reader: str
    connection_name: str
    part: str


def list_secret_reads(session: Session, *, limit: int = 1000) -> list[AuditLine]:
    """The newest lines of the audit log, newest first."""
    rows = session.scalars(select(SecretRead).order_by(SecretRead.id.desc()).limit(limit))
    return [AuditLine(row.read_at, row.reader, row.connection_name, row.part) for row in rows]


def _find(session: Session, name: str) -> Connection | None:
    return session.scalar(select(Connection).where(func.lower(Connection.name) == name.lower()))
