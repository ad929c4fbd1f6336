from __future__ import annotations

import pytest
from sqlalchemy import text

from safelight.control.secrets.connections import (
    ConnectionChange,
    ConnectionSpec,
    change_connection,
    delete_connection,
    get_connection,
    list_connections,
    list_secret_reads,
    put_connection,
    read_credentials,
    read_secrets,
)
from safelight.control.secrets.encryption import Cipher
from safelight.control.store.database import Database
from safelight.errors import InvalidRequest, ResourceNotFound

HUB = ConnectionSpec(name="HuggingFaceTokenConnection", credentials={"HF_TOKEN": "hf_very_secret"})


def test_a_connection_is_found_by_its_name_in_any_case(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        put_connection(session, cipher, HUB)

    with database.transaction() as session:
        assert get_connection(session, "huggingfacetokenconnection").name == HUB.name
        assert [row.name for row in list_connections(session)] == [HUB.name]


def test_no_secret_is_in_the_database_in_the_clear(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        put_connection(session, cipher, HUB)

    with database.transaction() as session:
        row = session.execute(text("SELECT * FROM connections")).one()
        assert "hf_very_secret" not in str(tuple(row))


def test_putting_a_connection_again_replaces_its_secrets(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        put_connection(session, cipher, HUB)
        put_connection(session, cipher, ConnectionSpec(name=HUB.name, credentials={"OTHER": "value"}))

    with database.transaction() as session:
        connection = get_connection(session, HUB.name)
        assert read_credentials(session, cipher, connection, reader="admin", part="*") == {"OTHER": "value"}


def test_changing_a_connection_keeps_the_secrets_that_are_not_named_and_is_audited(
    database: Database, cipher: Cipher
) -> None:
    with database.transaction() as session:
        put_connection(session, cipher, ConnectionSpec(name="hub", credentials={"ONE": "1", "TWO": "2"}))

    with database.transaction() as session:
        change = ConnectionChange(labels={"team": "art"}, credentials={"TWO": "second"})
        change_connection(session, cipher, "HUB", change, reader="administrator, to change it")

    with database.transaction() as session:
        connection, secrets = read_secrets(session, cipher, "hub", reader="test")
        _, changed = list_secret_reads(session)
    assert (connection.labels, connection.target, secrets) == ({"team": "art"}, "_", {"ONE": "1", "TWO": "second"})
    assert (changed.reader, changed.connection_name) == ("administrator, to change it", "hub")


def test_every_read_of_a_secret_is_in_the_audit_log_without_its_value(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        connection = put_connection(session, cipher, HUB)
        read_credentials(session, cipher, connection, reader="administrator", part="credentials/HF_TOKEN")

    with database.transaction() as session:
        (line,) = list_secret_reads(session)
        row = session.execute(text("SELECT * FROM secret_reads")).one()
    assert (line.reader, line.connection_name, line.part) == ("administrator", HUB.name, "credentials/HF_TOKEN")
    assert "hf_very_secret" not in str(tuple(row))


def test_a_deleted_connection_is_gone(database: Database, cipher: Cipher) -> None:
    with database.transaction() as session:
        put_connection(session, cipher, HUB)

    with database.transaction() as session:
        assert delete_connection(session, HUB.name)
        assert not delete_connection(session, HUB.name)
        with pytest.raises(ResourceNotFound):
            get_connection(session, HUB.name)


@pytest.mark.parametrize(
    ("name", "credentials", "message"),
    [
        ("ab", {"K": "v"}, "3 to 33"),
        ("-abc", {"K": "v"}, "3 to 33"),
        ("hub", {}, "no secret"),
        ("hub", {"K": " "}, "is empty"),
    ],
)
def test_a_connection_that_makes_no_sense_is_refused(name: str, credentials: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ConnectionSpec(name=name, credentials=credentials)


def test_secrets_are_not_in_a_specs_repr() -> None:
    assert "hf_very_secret" not in repr(HUB)
