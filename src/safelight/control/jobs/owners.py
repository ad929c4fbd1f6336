"""What hides behind one file of 32 random bytes: the names of jobs' owners, and each owner's key for webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from safelight.control.secrets.private_files import read_or_create

SECRET_FILE = "job-secret"  # noqa: S105  a file's name


class JobSecrets:
    """Derived from the file, so that nothing of a credential is in the database."""

    def __init__(self, data_dir: Path) -> None:
        self._root = read_or_create(data_dir / SECRET_FILE, lambda: secrets.token_urlsafe(32)).encode()

    def owner_of(self, endpoint_name: str | None, credential: str) -> str:
        """The name of whoever sends `credential` to an endpoint, or to the server's own model (None)."""
        return self._derive("owner", f"{endpoint_name or ''}\0{credential}").hex()

    def webhook_key(self, owner: str) -> bytes:
        """What an owner's webhooks are signed with."""
        return self._derive("webhook", owner)

    def webhook_secret(self, owner: str) -> str:
        """The same as Standard Webhooks writes it."""
        return "whsec_" + base64.b64encode(self.webhook_key(owner)).decode("ascii")

    def _derive(self, purpose: str, name: str) -> bytes:
        text = f"{purpose}\0{name}".encode("utf-8", "surrogateescape")
        return hmac.new(self._root, text, hashlib.sha256).digest()
