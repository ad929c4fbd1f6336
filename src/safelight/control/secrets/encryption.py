"""Secrets at rest: encryption with rotating keys.

The newest key encrypts, all of them decrypt (`MultiFernet`). Rotation writes a new key first, re-encrypts every secret
in one transaction that waits for those that are under way and lets no other begin, then drops the old keys: a crash in
between leaves everything readable.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import select
from sqlalchemy.orm import Session

from safelight.control.secrets.private_files import read_or_create, write_private
from safelight.control.store.database import Database, lock_tables
from safelight.control.store.tables import Connection, Deployment, Endpoint, Job, SharedSecret
from safelight.disk import Disk
from safelight.errors import ConfigurationError, Conflict

KEY_FILE = "encryption-keys"


class Cipher:
    """Encrypts with the first of its keys, decrypts with any."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.use(keys)

    def use(self, keys: Sequence[str]) -> None:
        """From now on these keys, the newest first. Raises ConfigurationError."""
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError as error:
            raise ConfigurationError(f"an encryption key is not a Fernet key: {error}") from None

    def encrypt(self, text: str) -> str:
        return self._fernet.encrypt(text.encode("utf-8")).decode("ascii")

    def decrypt(self, token: str) -> str:
        """Raises ConfigurationError if none of the keys fits."""
        try:
            return self._fernet.decrypt(token).decode("utf-8")
        except InvalidToken:
            raise ConfigurationError(
                f"a secret in the database was encrypted with a key that is not here; put back the file {KEY_FILE} of "
                "the data directory, or the value of SAFELIGHT_ENCRYPTION_KEYS, that it was written with; gateways of "
                "one database share that value"
            ) from None

    def rotate(self, token: str) -> str:
        """The same secret under the newest key."""
        return self.encrypt(self.decrypt(token))


class KeyRing:
    """The keys on disk or from the environment, and the cipher that the whole control plane shares."""

    def __init__(self, data_dir: Path, from_environment: str | None, disk: Disk | None = None) -> None:
        self._data_dir = data_dir
        self._disk = disk or Disk()
        self._is_from_environment = from_environment is not None
        self._keys = read_keys(data_dir, from_environment)
        self._rotating = threading.Lock()
        self.cipher = Cipher(self._keys)

    def rotate(self, database: Database, *, is_shared: bool = False) -> int:
        """Put every secret under a new key; how many there were. With keys from the environment: under its newest.

        If it fails, the old keys stay beside the new one, and another rotation drops them. Raises StorageUnavailable,
        or Conflict if other gateways share the database and would not have the new key.
        """
        if is_shared and not self._is_from_environment:
            raise Conflict(
                "other gateways share the database and would not get the new key: start all of them with "
                "SAFELIGHT_ENCRYPTION_KEYS=NEW,OLD, one after the other, and rotate then"
            )
        with self._rotating:
            with database.transaction() as session:
                lock_tables(session, _TABLES_WITH_SECRETS)
                if not self._is_from_environment:
                    self._use([generate_key(), *self._keys])
                count = reencrypt_all(session, self.cipher)
            if not self._is_from_environment:
                self._use(self._keys[:1])
            return count

    def _use(self, keys: list[str]) -> None:
        with self._disk.writing("the file of encryption keys"):
            write_keys(self._data_dir, keys)
        self._keys = keys
        self.cipher.use(keys)


_TABLES_WITH_SECRETS = (Endpoint, Deployment, Connection, Job, SharedSecret)
"""In the order in which the reconciler reads them, so that it and a rotation cannot wait for each other."""


def generate_key() -> str:
    return Fernet.generate_key().decode("ascii")


def read_keys(data_dir: Path, from_environment: str | None) -> list[str]:
    """The encryption keys, newest first: from the environment, or from a file that is made if there is none."""
    text = from_environment or read_or_create(data_dir / KEY_FILE, generate_key)
    return text.replace(",", " ").split()


def write_keys(data_dir: Path, keys: Sequence[str]) -> None:
    write_private(data_dir / KEY_FILE, "\n".join(keys))


def reencrypt_all(session: Session, cipher: Cipher) -> int:
    """Put every secret under the newest key; how many there were."""
    count = 0
    for connection in session.scalars(select(Connection)):
        connection.encrypted_credentials = cipher.rotate(connection.encrypted_credentials)
        count += 1
    for endpoint in session.scalars(select(Endpoint)):
        endpoint.encrypted_primary_key = cipher.rotate(endpoint.encrypted_primary_key)
        endpoint.encrypted_secondary_key = cipher.rotate(endpoint.encrypted_secondary_key)
        endpoint.encrypted_token_key = cipher.rotate(endpoint.encrypted_token_key)
        count += 3
    for deployment in session.scalars(select(Deployment)):
        if deployment.encrypted_environment is not None:
            deployment.encrypted_environment = cipher.rotate(deployment.encrypted_environment)
            count += 1
    for job in session.scalars(select(Job)):
        if job.encrypted_webhook_url is not None:
            job.encrypted_webhook_url = cipher.rotate(job.encrypted_webhook_url)
            count += 1
    for secret in session.scalars(select(SharedSecret)):
        secret.encrypted_value = cipher.rotate(secret.encrypted_value)
        count += 1
    return count


def check_keys(session: Session, cipher: Cipher) -> None:
    """Raises ConfigurationError if a secret was encrypted with a key that is not here."""
    columns = (Connection.encrypted_credentials, Endpoint.encrypted_primary_key, SharedSecret.encrypted_value)
    for column in columns:
        for token in session.scalars(select(column)):
            cipher.decrypt(token)
