"""What a script needs to point the `azure-ai-ml` SDK at a Safelight server; the SDK itself is not needed here.

from azure.ai.ml import MLClient
from safelight.azure import AdminCredential, cloud

client = MLClient(AdminCredential(), "any", "any", "any", **cloud("https://127.0.0.1:8443"))
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

DATA_DIR = Path("~/.local/share/safelight")
LIFETIME_S = 24 * 3600


class AccessToken(NamedTuple):
    """azure-core's type of this name, field for field."""

    token: str
    expires_on: int


class AdminCredential:
    """The administrator's token of a Safelight server, as a credential of the Azure SDK."""

    def __init__(self, token: str | None = None, *, data_dir: Path = DATA_DIR) -> None:
        """`token`, or what the server on this machine wrote to `data_dir` at its first start."""
        self._token = token or (data_dir.expanduser() / "admin-token").read_text(encoding="utf-8").strip()

    def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
        """The same token for every scope."""
        return AccessToken(self._token, int(time.time()) + LIFETIME_S)


def cloud(url: str, *, certificate: Path | str | None = None) -> dict[str, object]:
    """Arguments that make `MLClient` take the server at `url` for the whole cloud.

    `certificate` is the PEM file that the server's certificate is checked against: `tls-certificate.pem` in its data
    directory, where it made one itself.
    """
    url = url.rstrip("/")
    metadata = {
        "azure_portal": url,
        "resource_manager": url,
        "active_directory": url,
        "aml_resource_id": url,
        "storage_endpoint": "core.local",
        "registry_discovery_endpoint": f"{url}/",
    }
    arguments: dict[str, object] = {"cloud": "Safelight", "cloud_metadata": metadata, "enable_telemetry": False}
    if certificate is not None:
        arguments["connection_verify"] = str(certificate)
    return arguments
