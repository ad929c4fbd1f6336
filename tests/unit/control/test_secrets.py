from __future__ import annotations

from pathlib import Path

import pytest

from safelight.control.connections import ConnectionSpec, get_connection, put_connection, read_credentials
from safelight.control.database import Database
from safelight.control.secrets import (
    ADMIN_TOKEN_FILE,
    KEY_FILE,
    Cipher,
    generate_key,
    read_admin_token,
    read_keys,
    reencrypt_all,
    write_keys,
)
from safelight.errors import ConfigurationError


def test_a_key_is_made_once_in_a_file_that_only_the_owner_reads(tmp_path: Path) -> None:
    keys = read_keys(tmp_path / "data", None)

    assert read_keys(tmp_path / "data", None) == keys
    assert (tmp_path / "data" / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    new, old = generate_key(), generate_key()

    assert read_keys(tmp_path, f"{new},{old}") == [new, old]
    assert not (tmp_path / KEY_FILE).exists()


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write_keys(tmp_path, [generate_key()])
    (tmp_path / KEY_FILE).chmod(0o644)

    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_keys(tmp_path, None)


def test_the_administrators_token_is_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    token = read_admin_token(tmp_path)

    assert len(token) >= 40
    assert read_admin_token(tmp_path) == token
    assert (tmp_path / ADMIN_TOKEN_FILE).stat().st_mode & 0o777 == 0o600


def test_what_the_old_key_wrote_is_readable_after_rotation_with_the_new_one_alone(database: Database) -> None:
    old, new = generate_key(), generate_key()
    with database.transaction() as session:
        put_connection(session, Cipher([old]), ConnectionSpec(name="hub", credentials={"HF_TOKEN": "hf_secret"}))

    with database.transaction() as session:
        count = reencrypt_all(session, Cipher([new, old]))

    with database.transaction() as session:
        connection = get_connection(session, "hub")
        assert count == 1
        assert read_credentials(session, Cipher([new]), connection, reader="test", part="*") == {
            "HF_TOKEN": "hf_secret"
        }


def test_a_secret_under_a_lost_key_names_what_to_put_back(cipher: Cipher) -> None:
    with pytest.raises(ConfigurationError, match=KEY_FILE):
        Cipher([generate_key()]).decrypt(cipher.encrypt("hf_secret"))
