from __future__ import annotations

import json

import pytest
from sqlalchemy.orm import Session

from safelight.control.endpoints.endpoints import EndpointSpec, put_endpoint
from safelight.control.secrets.connections import ConnectionSpec, put_connection
from safelight.control.secrets.encryption import Cipher
from safelight.control.secrets.secret_references import ENFORCE_ACCESS, GATED_MODEL_REFERENCE, resolve_references
from safelight.control.store.database import Database
from safelight.control.store.tables import Endpoint
from safelight.errors import SecretsInjectionFailed

NAME = "HuggingFaceTokenConnection"


def _endpoint(session: Session, cipher: Cipher, access: str | None = "enabled") -> Endpoint:
    properties = {} if access is None else {ENFORCE_ACCESS: access}
    return put_endpoint(session, cipher, EndpointSpec(name="flux", properties=properties))[0]


def _resolve(session: Session, cipher: Cipher, endpoint: Endpoint, value: str) -> str:
    return resolve_references(session, cipher, endpoint, {"HF_TOKEN": value}, reader="test")["HF_TOKEN"]


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        (GATED_MODEL_REFERENCE, "hf_secret"),
        (f"${{{{azureml://connections/{NAME}/metadata/team}}}}", "art"),
        (f"${{{{azureml://connections/{NAME}/target}}}}", "_"),
        ("no reference", "no reference"),
    ],
)
def test_a_reference_becomes_what_it_stands_for(database: Database, cipher: Cipher, reference: str, value: str) -> None:
    with database.transaction() as session:
        put_connection(
            session, cipher, ConnectionSpec(name=NAME, labels={"team": "art"}, credentials={"HF_TOKEN": "hf_secret"})
        )

        assert _resolve(session, cipher, _endpoint(session, cipher), reference) == value


def test_a_reference_to_a_whole_connection_is_its_json(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        put_connection(session, cipher, ConnectionSpec(name=NAME, credentials={"HF_TOKEN": "hf_secret"}))
        value = _resolve(session, cipher, _endpoint(session, cipher), f"${{{{azureml://connections/{NAME}}}}}")

        assert json.loads(value)["credentials"] == {"keys": {"HF_TOKEN": "hf_secret"}}


@pytest.mark.parametrize("access", [None, "disabled"])
def test_an_endpoint_without_access_reads_nothing_and_is_told_how_to_mend_it(
    database: Database, cipher: Cipher, access: str | None
) -> None:
    remedy = f"online-endpoint create --name NEW-NAME --set properties.{ENFORCE_ACCESS}=enabled"
    with database.transaction() as session:
        put_connection(session, cipher, ConnectionSpec(name=NAME, credentials={"HF_TOKEN": "hf_secret"}))
        endpoint = _endpoint(session, cipher, access)

        with pytest.raises(SecretsInjectionFailed, match=remedy):
            _resolve(session, cipher, endpoint, GATED_MODEL_REFERENCE)


def test_a_missing_connection_is_named_with_the_command_that_creates_it(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        endpoint = _endpoint(session, cipher)

        with pytest.raises(
            SecretsInjectionFailed, match=f"connection create --name {NAME} --type Generic --secret HF_TOKEN"
        ):
            _resolve(session, cipher, endpoint, GATED_MODEL_REFERENCE)


def test_a_missing_key_is_named_beside_those_that_are_there(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        put_connection(session, cipher, ConnectionSpec(name=NAME, credentials={"key": "hf_secret"}))
        endpoint = _endpoint(session, cipher)

        with pytest.raises(SecretsInjectionFailed, match=r"no key 'HF_TOKEN' .*it has: key") as caught:
            _resolve(session, cipher, endpoint, GATED_MODEL_REFERENCE)
    assert "hf_secret" not in caught.value.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${{keyvault:https://a.vault.azure.net/secrets/b/c}}", "key vault"),
        ("${{azureml://connection/x}}", "does not have the form"),
        ("Bearer ${{azureml://connections/x/target}}", "does not have the form"),
    ],
)
def test_a_reference_of_another_form_is_refused_by_its_variable(
    database: Database, cipher: Cipher, value: str, message: str
) -> None:
    with database.transaction() as session:
        endpoint = _endpoint(session, cipher)

        with pytest.raises(SecretsInjectionFailed, match=message):
            _resolve(session, cipher, endpoint, value)
