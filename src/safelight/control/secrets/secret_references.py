"""`${{azureml://connections/…}}` in a deployment's environment variables: who may read it, and what it stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from sqlalchemy.orm import Session

from safelight.control.secrets.connections import get_connection, read_credentials
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.tables import Endpoint
from safelight.errors import ResourceNotFound, SecretsInjectionFailed

ENFORCE_ACCESS = "enforce_access_to_default_secret_stores"
ACCESS_VALUES = ("enabled", "disabled")
HUB_TOKEN = "HF_TOKEN"  # noqa: S105  a variable's name
GATED_MODEL_REFERENCE = "${{azureml://connections/HuggingFaceTokenConnection/credentials/HF_TOKEN}}"
"""What a gated catalogue model adds on its own, as on Azure."""

_REFERENCE = re.compile(
    r"\$\{\{\s*azureml://connections/(?P<connection>[^/{}\s]+)"
    r"(?:/(?P<part>credentials|metadata)/(?P<key>[^/{}\s]+)|/(?P<target>target))?\s*\}\}"
)


def reads_secrets(properties: Mapping[str, str]) -> bool:
    """Whether an endpoint that was created with these properties may read connections."""
    return properties.get(ENFORCE_ACCESS, "").lower() == "enabled"


def resolve_references(
    session: Session, cipher: Cipher, endpoint: Endpoint, environment: Mapping[str, str], *, reader: str
) -> dict[str, str]:
    """The environment with every reference replaced. Raises SecretsInjectionFailed naming the missing step."""
    resolved = dict(environment)
    for variable, value in environment.items():
        if "${{" not in value:
            continue
        match = _REFERENCE.fullmatch(value.strip())
        if match is None:
            raise _failure(_explain_form(variable, value))
        _check_access(endpoint, match["connection"])
        resolved[variable] = _read(session, cipher, match, reader)
    return resolved


def _check_access(endpoint: Endpoint, connection_name: str) -> None:
    if reads_secrets(endpoint.properties):
        return
    raise _failure(
        f"Endpoint '{endpoint.name}' was not created with {ENFORCE_ACCESS}: enabled, so it may not read connection "
        f"'{connection_name}'; run: safelight online-endpoint create --name NEW-NAME --set "
        f"properties.{ENFORCE_ACCESS}=enabled, then deploy to that endpoint"
    )


def _read(session: Session, cipher: Cipher, match: re.Match[str], reader: str) -> str:
    name, part, key = match["connection"], match["part"], match["key"]
    try:
        connection = get_connection(session, name)
    except ResourceNotFound:
        wanted = key if part == "credentials" else "KEY"
        raise _failure(
            f"There is no connection '{name}'; run: safelight connection create --name {name} --type Generic "
            f"--secret {wanted} (it asks for the value), then deploy again"
        ) from None
    if match["target"]:
        return connection.target
    if part == "metadata":
        return _value_of(connection.labels, name, part, key)
    values = read_credentials(session, cipher, connection, reader=reader, part=f"credentials/{key}" if key else "*")
    if part == "credentials":
        return _value_of(values, name, part, key)
    return json.dumps({"credentials": {"keys": values}, "metadata": connection.labels, "target": connection.target})


def _value_of(values: Mapping[str, str], name: str, part: str, key: str) -> str:
    if key in values:
        return values[key]
    present = ", ".join(sorted(values)) or "none"
    raise _failure(
        f"Connection '{name}' has no key '{key}' in its {part} (it has: {present}); run: safelight connection create "
        f"--name {name} --type Generic --secret {key} (it asks for the value), then deploy again"
    )


def _explain_form(variable: str, value: str) -> str:
    if "keyvault:" in value:
        return (
            f"Environment variable '{variable}' refers to a key vault, and there is none here; put the secret into a "
            "connection and write ${{azureml://connections/NAME/credentials/KEY}}"
        )
    return (
        f"Environment variable '{variable}' does not have the form ${{{{azureml://connections/NAME/credentials/KEY}}}} "
        "(or …/metadata/KEY, …/target, or the connection alone)"
    )


def _failure(reason: str) -> SecretsInjectionFailed:
    return SecretsInjectionFailed(f"Failed to retrieve and inject workspace connection secrets. {reason}.")
