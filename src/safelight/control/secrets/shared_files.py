"""The files of the data directory that gateways of one database must have alike: what one made, all others get."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from safelight.control.secrets.encryption import Cipher
from safelight.control.secrets.private_files import write_private_bytes
from safelight.control.store.database import Database, lock
from safelight.control.store.tables import SharedSecret
from safelight.errors import ConfigurationError

logger = logging.getLogger(__name__)


def share_files(database: Database, cipher: Cipher, paths: Sequence[Path]) -> None:
    """Each of them gets the content that the database has; the first gateway's becomes that.

    Raises ConfigurationError.
    """
    with database.transaction() as session:
        lock(session, "shared secrets")
        for path in paths:
            _share(session, cipher, path)


def _share(session: Session, cipher: Cipher, path: Path) -> None:
    row = session.get(SharedSecret, path.name)
    try:
        own = path.read_bytes()
        if row is None:
            session.add(SharedSecret(name=path.name, encrypted_value=cipher.encrypt(_to_text(own))))
            return
        shared = base64.b64decode(cipher.decrypt(row.encrypted_value))
        if shared != own:
            write_private_bytes(path, shared)
            logger.info("%s has been replaced by the one that all gateways of the database share", path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read or written: {error.strerror}") from None


def _to_text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
