"""Online endpoints: their rules, their keys, and their queries."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from safelight.control.endpoints.operations import begin_operation, check_idle
from safelight.control.secrets.connections import record_read
from safelight.control.secrets.encryption import Cipher
from safelight.control.secrets.secret_references import ACCESS_VALUES, ENFORCE_ACCESS, reads_secrets
from safelight.control.store.tables import Deployment, Endpoint, Operation, OperationKind, ProvisioningState, utc_now
from safelight.errors import Conflict, InvalidRequest, ResourceNotFound

MAX_ENDPOINTS = 100
MAX_MIRROR_PERCENT = 50
MAX_LOCATION_CHARACTERS = 64
AUTH_MODES = ("key", "aml_token", "aad_token")
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_KEY = re.compile(r"[!-~]{8,512}")

KeyName = Literal["primary", "secondary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """An endpoint as it was asked for; valid once built."""

    name: str
    auth_mode: str = "key"
    description: str = ""
    location: str = "local"
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    traffic: Mapping[str, int] = field(default_factory=dict)
    mirror_traffic: Mapping[str, int] = field(default_factory=dict)
    public_network_access: str = "Enabled"
    primary_key: str | None = field(default=None, repr=False)
    """Only read when the endpoint is created; made here if not given."""
    secondary_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_name("endpoint", self.name)
        if self.auth_mode not in AUTH_MODES:
            raise InvalidRequest(
                f"auth_mode {self.auth_mode!r} is not one of {', '.join(AUTH_MODES)}", field="auth_mode"
            )
        if (access := self.properties.get(ENFORCE_ACCESS, "disabled")).lower() not in ACCESS_VALUES:
            raise InvalidRequest(
                f"property {ENFORCE_ACCESS} is {access!r}; it must be {' or '.join(ACCESS_VALUES)}",
                field=f"properties.{ENFORCE_ACCESS}",
            )
        if self.public_network_access.lower() not in ("enabled", "disabled"):
            raise InvalidRequest("public_network_access must be enabled or disabled", field="public_network_access")
        check_location(self.location)
        _check_percentages(self.traffic, self.mirror_traffic)
        for key in (self.primary_key, self.secondary_key):
            _check_key(key)


def check_name(kind: str, name: str) -> None:
    """Azure's rule. Raises InvalidRequest."""
    if not 3 <= len(name) <= 32 or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{kind} name {name!r} is not possible: 3 to 32 letters, digits and dashes, the first one a letter, the "
            "last one not a dash",
            field="name",
        )


def check_location(location: str) -> None:
    """Azure's regions: kept and shown, without a meaning here. Raises InvalidRequest."""
    if len(location) > MAX_LOCATION_CHARACTERS:
        raise InvalidRequest(f"a location has at most {MAX_LOCATION_CHARACTERS} characters", field="location")


def _check_key(value: str | None) -> None:
    """A key of the user's own must fit into a header."""
    if value and not _KEY.fullmatch(value):
        raise InvalidRequest(
            "a key must be 8 to 512 letters, digits or signs of ASCII, without spaces; leave it out to have one made",
            field="keys",
        )


def put_endpoint(session: Session, cipher: Cipher, spec: EndpointSpec) -> tuple[Endpoint, Operation]:
    """Create or update; the reconciler finishes the operation. Raises InvalidRequest or Conflict."""
    existing = find_endpoint(session, spec.name)
    if existing is None:
        return _create(session, cipher, spec)
    check_idle(session, existing.name)
    _check_update(session, existing, spec)
    _write(existing, replace(spec, properties=existing.properties | dict(spec.properties)))
    existing.provisioning_state = ProvisioningState.UPDATING
    return existing, begin_operation(session, OperationKind.UPDATE, existing.name)


def spec_of(endpoint: Endpoint) -> EndpointSpec:
    """What would ask for the endpoint as it is."""
    return EndpointSpec(
        name=endpoint.name,
        auth_mode=endpoint.auth_mode,
        description=endpoint.description,
        location=endpoint.location,
        tags=endpoint.tags,
        properties=endpoint.properties,
        traffic=endpoint.traffic,
        mirror_traffic=endpoint.mirror_traffic,
        public_network_access=endpoint.public_network_access,
    )


def delete_endpoint(session: Session, name: str) -> Operation | None:
    """Begin to delete an endpoint with its deployments; None if there is none."""
    endpoint = find_endpoint(session, name)
    if endpoint is None:
        return None
    operation = begin_operation(session, OperationKind.DELETE, endpoint.name)
    endpoint.provisioning_state = ProvisioningState.DELETING
    return operation


def get_endpoint(session: Session, name: str) -> Endpoint:
    """Raises ResourceNotFound."""
    endpoint = find_endpoint(session, name)
    if endpoint is None:
        raise ResourceNotFound(f"no endpoint '{name}'; see `safelight online-endpoint list`")
    return endpoint


def find_endpoint(session: Session, name: str) -> Endpoint | None:
    """By name, in any case: ARM paths and host names have none. The row stays locked for this transaction."""
    return session.scalar(select(Endpoint).where(func.lower(Endpoint.name) == name.lower()).with_for_update())


def list_endpoints(session: Session) -> Sequence[Endpoint]:
    return session.scalars(select(Endpoint).order_by(Endpoint.name)).all()


@dataclass(frozen=True, slots=True)
class Keys:
    """Both are valid at any time, so that clients can move from one to the other."""

    primary: str = field(repr=False)
    secondary: str = field(repr=False)


def show_keys(session: Session, cipher: Cipher, name: str, *, reader: str) -> Keys:
    """The keys, for somebody to see: that is in the audit log. Raises ResourceNotFound or InvalidRequest."""
    endpoint = get_endpoint(session, name)
    keys = read_keys_of(endpoint, cipher)
    record_read(session, reader=reader, source=f"endpoint {endpoint.name}", part="keys")
    return keys


def read_token_key(session: Session, cipher: Cipher, name: str, *, reader: str) -> tuple[Endpoint, str]:
    """What signs an endpoint's tokens, for a token that somebody gets: that is in the audit log.

    Raises ResourceNotFound or InvalidRequest.
    """
    endpoint = get_endpoint(session, name)
    if endpoint.auth_mode != "aml_token":
        raise InvalidRequest(
            f"endpoint '{endpoint.name}' has auth_mode {endpoint.auth_mode}, not aml_token, and gives no tokens",
            field="name",
        )
    record_read(session, reader=reader, source=f"endpoint {endpoint.name}", part="token")
    return endpoint, cipher.decrypt(endpoint.encrypted_token_key)


def read_keys_of(endpoint: Endpoint, cipher: Cipher) -> Keys:
    """Raises InvalidRequest if the endpoint takes tokens."""
    if endpoint.auth_mode != "key":
        raise InvalidRequest(
            f"endpoint '{endpoint.name}' has auth_mode {endpoint.auth_mode} and so no keys; ask for a token",
            field="auth_mode",
        )
    return Keys(cipher.decrypt(endpoint.encrypted_primary_key), cipher.decrypt(endpoint.encrypted_secondary_key))


def regenerate_key(
    session: Session, cipher: Cipher, name: str, key: KeyName, value: str | None = None, *, reader: str
) -> Keys:
    """Replace one key; both as they are then. A `value` that is a current key counts as none: azure-ai-ml sends it.

    Raises ResourceNotFound or InvalidRequest.
    """
    _check_key(value)
    endpoint = get_endpoint(session, name)
    keys = read_keys_of(endpoint, cipher)
    if value in (keys.primary, keys.secondary):
        value = None
    _check_unused(session, cipher, value)
    new = cipher.encrypt(value or generate_endpoint_key())
    if key == "primary":
        endpoint.encrypted_primary_key = new
    else:
        endpoint.encrypted_secondary_key = new
    return show_keys(session, cipher, endpoint.name, reader=reader)


def _check_unused(session: Session, cipher: Cipher, value: str | None) -> None:
    """A key names its endpoint where neither path nor host does. Every key is compared, in constant time."""
    if not value:
        return
    columns = select(Endpoint.encrypted_primary_key, Endpoint.encrypted_secondary_key)
    tokens = [token for row in session.execute(columns) for token in row]
    if any([hmac.compare_digest(cipher.decrypt(token).encode(), value.encode()) for token in tokens]):  # noqa: C419
        raise InvalidRequest("this key cannot be taken; choose another, or leave it out to have one made", field="keys")


def generate_endpoint_key() -> str:
    return secrets.token_urlsafe(36)


def _create(session: Session, cipher: Cipher, spec: EndpointSpec) -> tuple[Endpoint, Operation]:
    if spec.traffic or spec.mirror_traffic:
        raise InvalidRequest(
            f"traffic of endpoint '{spec.name}' cannot be set when it is created: it has no deployment yet; set it "
            "when one is ready",
            field="traffic",
        )
    if (session.scalar(select(func.count()).select_from(Endpoint)) or 0) >= MAX_ENDPOINTS:
        raise Conflict(f"there are {MAX_ENDPOINTS} endpoints already; delete one first")
    for key in (spec.primary_key, spec.secondary_key):
        _check_unused(session, cipher, key)
    endpoint = Endpoint(
        name=spec.name,
        encrypted_primary_key=cipher.encrypt(spec.primary_key or generate_endpoint_key()),
        encrypted_secondary_key=cipher.encrypt(spec.secondary_key or generate_endpoint_key()),
        encrypted_token_key=cipher.encrypt(generate_endpoint_key()),
        provisioning_state=ProvisioningState.CREATING,
    )
    _write(endpoint, spec)
    operation = begin_operation(session, OperationKind.CREATE, spec.name)
    session.add(endpoint)
    session.flush()
    return endpoint, operation


def _write(endpoint: Endpoint, spec: EndpointSpec) -> None:
    endpoint.auth_mode = spec.auth_mode
    endpoint.description = spec.description
    endpoint.location = spec.location
    endpoint.tags = dict(spec.tags)
    endpoint.properties = dict(spec.properties)
    endpoint.traffic = {name: percent for name, percent in spec.traffic.items() if percent}
    endpoint.mirror_traffic = {name: percent for name, percent in spec.mirror_traffic.items() if percent}
    endpoint.public_network_access = spec.public_network_access
    endpoint.updated_at = utc_now()


def _check_update(session: Session, endpoint: Endpoint, spec: EndpointSpec) -> None:
    if spec.auth_mode != endpoint.auth_mode:
        raise InvalidRequest(
            f"auth_mode of endpoint '{endpoint.name}' is {endpoint.auth_mode} and cannot be changed; create another "
            "endpoint",
            field="auth_mode",
        )
    if ENFORCE_ACCESS in spec.properties and reads_secrets(spec.properties) != reads_secrets(endpoint.properties):
        raise InvalidRequest(
            f"property {ENFORCE_ACCESS} of endpoint '{endpoint.name}' cannot be changed: it counts only when an "
            "endpoint is created; create a new endpoint with it",
            field=f"properties.{ENFORCE_ACCESS}",
        )
    for key, value in spec.properties.items():
        if endpoint.properties.get(key, value) != value:
            raise InvalidRequest(
                f"property {key!r} of endpoint '{endpoint.name}' is {endpoint.properties[key]!r}: properties can be "
                "added, but not changed",
                field="properties",
            )
    _check_targets(session, endpoint, spec)


def _check_targets(session: Session, endpoint: Endpoint, spec: EndpointSpec) -> None:
    columns = select(Deployment.name, Deployment.applied_folder.is_not(None))
    ready = dict(session.execute(columns.where(Deployment.endpoint_name == endpoint.name)).all())
    wanted = {name for traffic in (spec.traffic, spec.mirror_traffic) for name, percent in traffic.items() if percent}
    for name in sorted(wanted):
        if name not in ready:
            has = ", ".join(sorted(ready)) or "none"
            raise InvalidRequest(
                f"endpoint '{endpoint.name}' has no deployment '{name}' (it has: {has})", field="traffic"
            )
        if not ready[name]:
            raise InvalidRequest(
                f"deployment '{name}' cannot take traffic: it has never become ready; see `safelight online-deployment "
                f"show --name {name} --endpoint {endpoint.name}`",
                field="traffic",
            )


def _check_percentages(traffic: Mapping[str, int], mirror_traffic: Mapping[str, int]) -> None:
    for name, percent in (*traffic.items(), *mirror_traffic.items()):
        if not 0 <= percent <= 100:
            raise InvalidRequest(f"traffic of '{name}' is {percent}; it must be 0 to 100 percent", field="traffic")
    if (total := sum(traffic.values())) not in (0, 100):
        raise InvalidRequest(f"traffic adds up to {total} percent; it must be 0 or 100", field="traffic")
    mirrored = {name: percent for name, percent in mirror_traffic.items() if percent}
    if len(mirrored) > 1:
        raise InvalidRequest("mirror traffic can go to one deployment only", field="mirror_traffic")
    for name, percent in mirrored.items():
        if percent > MAX_MIRROR_PERCENT:
            raise InvalidRequest(
                f"mirror traffic of '{name}' is {percent} percent; at most {MAX_MIRROR_PERCENT} are possible",
                field="mirror_traffic",
            )
        if traffic.get(name):
            raise InvalidRequest(f"'{name}' cannot have traffic and mirror traffic", field="mirror_traffic")
