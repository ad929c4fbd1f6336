from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from safelight.control.jobs.records import JobLimits, NewJob, StoredRequest, add_job, get_job
from safelight.control.secrets.connections import (
    ConnectionSpec,
    delete_connection,
    get_connection,
    put_connection,
    read_credentials,
    read_secrets,
)
from safelight.control.secrets.encryption import (
    KEY_FILE,
    Cipher,
    KeyRing,
    generate_key,
    read_keys,
    reencrypt_all,
    write_keys,
)
from safelight.control.secrets.private_files import ADMIN_TOKEN_FILE, read_admin_token
from safelight.control.store.database import Database
from safelight.errors import ConfigurationError, Conflict


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


def test_rotations_at_the_same_time_lose_no_secret(database: Database, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, None)
    _put_secret(database, ring)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ring.rotate(database), range(8)))

    assert _secret_as_a_restart_reads_it(database, tmp_path) == "hf_secret"


def test_a_secret_that_is_being_written_while_the_key_rotates_is_not_lost(database: Database, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, None)
    rotation = threading.Thread(target=ring.rotate, args=(database,))

    with database.transaction() as session:
        put_connection(session, ring.cipher, ConnectionSpec(name="hub", credentials={"HF_TOKEN": "hf_secret"}))
        rotation.start()
        rotation.join(timeout=0.2)
    rotation.join()

    assert _secret_as_a_restart_reads_it(database, tmp_path) == "hf_secret"


def test_the_address_of_a_webhook_that_comes_while_the_key_rotates_is_not_lost(
    database: Database, tmp_path: Path
) -> None:
    ring = KeyRing(tmp_path, None)
    request = StoredRequest(endpoint_name=None, server="http://s", path="/", query="", headers=(), body=b"{}")
    new = NewJob(owner="ann", request=request, webhook_url="https://receiver/s3cret")
    ring.rotate(database)
    rotation = threading.Thread(target=ring.rotate, args=(database,))

    with database.transaction() as session:
        job, _ = add_job(session, ring.cipher, new, JobLimits(max_jobs=1, max_bytes=100, lifetime_s=60))
        rotation.start()
        rotation.join(timeout=0.2)
    rotation.join()

    cipher = KeyRing(tmp_path, None).cipher
    with database.transaction() as session:
        encrypted = get_job(session, job.id, "ann").encrypted_webhook_url
    assert encrypted is not None
    assert cipher.decrypt(encrypted) == "https://receiver/s3cret"


def test_what_is_written_after_a_rotation_has_failed_survives_the_next_one(database: Database, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path, None)
    with database.transaction() as session:
        foreign = ConnectionSpec(name="foreign", credentials={"KEY": "value"})
        put_connection(session, Cipher([generate_key()]), foreign)
    with pytest.raises(ConfigurationError):
        ring.rotate(database)
    _put_secret(database, ring)
    with database.transaction() as session:
        delete_connection(session, "foreign")

    ring.rotate(database)

    assert _secret_as_a_restart_reads_it(database, tmp_path) == "hf_secret"
    assert len(read_keys(tmp_path, None)) == 1


def _put_secret(database: Database, ring: KeyRing) -> None:
    with database.transaction() as session:
        put_connection(session, ring.cipher, ConnectionSpec(name="hub", credentials={"HF_TOKEN": "hf_secret"}))


def _secret_as_a_restart_reads_it(database: Database, data_dir: Path) -> str:
    cipher = KeyRing(data_dir, None).cipher
    with database.transaction() as session:
        return read_secrets(session, cipher, "hub", reader="test")[1]["HF_TOKEN"]


def test_a_key_in_a_file_is_not_rotated_where_other_gateways_would_lose_what_it_encrypts(
    tmp_path: Path, database: Database
) -> None:
    ring, shared = KeyRing(tmp_path, None), KeyRing(tmp_path, f"{generate_key()},{generate_key()}")

    with pytest.raises(Conflict, match="SAFELIGHT_ENCRYPTION_KEYS=NEW,OLD"):
        ring.rotate(database, is_shared=True)

    assert shared.rotate(database, is_shared=True) == 0
