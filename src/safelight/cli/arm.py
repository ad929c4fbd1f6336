"""The command line's way to a running server: its ARM surface, with the token from its data directory.

What it costs to start is paid when a server is about to be asked: a shell that completes a command's options asks none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from safelight.control.private_files import ADMIN_TOKEN_FILE
from safelight.errors import ConfigurationError, ResourceNotFound, SafelightError
from safelight.server.address import ServerAddress, read_address

if TYPE_CHECKING:
    import ssl

    import httpx

JsonObject = dict[str, Any]
WORKSPACE = "/subscriptions/local/resourceGroups/local/providers/Microsoft.MachineLearningServices/workspaces/local"
API_VERSION = {"api-version": "2024-10-01"}
TIMEOUT_S = 60.0
POLL_S = 1.0


class RequestRefused(SafelightError):
    """The server refused what was asked, and said why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a create, update or delete has begun."""

    resource: JsonObject
    status_url: str | None
    """None: it is done already."""


def read_access(data_dir: Path) -> tuple[ServerAddress, dict[str, str]]:
    """Where the server over a data directory is, and the headers of its administrator. Raises ConfigurationError."""
    address = read_address(data_dir)
    try:
        token = (data_dir / ADMIN_TOKEN_FILE).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"the administrator's token in {data_dir} cannot be read: {error.strerror}") from None
    return address, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


class Arm:
    """A running server's control plane."""

    def __init__(self, data_dir: Path | None) -> None:
        from safelight.settings import load_settings

        settings = load_settings(data_dir=data_dir)
        self.address, self._headers = read_access(settings.data_dir)
        if settings.public_url is not None:
            self.address = replace(self.address, url=settings.public_url)

    def tls(self, url: str) -> ssl.SSLContext | bool:
        """What the certificate of the server at `url` is checked against."""
        import ssl

        if urlsplit(url).scheme == "http":
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and reads no list of whom to trust
        if self.address.certificate is None:
            return True
        return ssl.create_default_context(cafile=self.address.certificate)

    def get(self, path: str) -> JsonObject:
        """Raises ResourceNotFound or RequestRefused."""
        return self._json(self._send("GET", path))

    def list(self, path: str) -> list[JsonObject]:
        return list(self.get(path)["value"])

    def post(self, path: str, body: JsonObject | None = None) -> JsonObject:
        return self._json(self._send("POST", path, body))

    def put(self, path: str, body: JsonObject) -> Operation:
        return self._operation(self._send("PUT", path, body))

    def patch(self, path: str, body: JsonObject) -> JsonObject:
        return self._json(self._send("PATCH", path, body))

    def delete(self, path: str) -> Operation:
        """Raises ResourceNotFound if there is nothing to delete."""
        response = self._send("DELETE", path)
        if response.status_code == HTTPStatus.NO_CONTENT:
            raise ResourceNotFound(f"there is no {_resource_at(path)}")
        return self._operation(response)

    def wait(self, operation: Operation, doing: str, detail: Callable[[], str] = str) -> None:
        """Until the operation has ended; `detail` is asked how far it is. Raises RequestRefused if it failed."""
        if operation.status_url is None:
            return
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True, highlight=False)
        with console.status(f"{escape(doing)} ...") as status:
            while (state := self.get(operation.status_url))["status"] == "InProgress":
                status.update(f"{escape(doing)} ... {escape(detail())}")
                time.sleep(POLL_S)
        if state["status"] != "Succeeded":
            error = state["error"]
            raise RequestRefused(f"({error['code']}) {error['message']}")

    def _send(self, method: str, path: str, body: JsonObject | None = None) -> httpx.Response:
        import httpx

        url = path if path.startswith("http") else self.address.url + WORKSPACE + path
        content = None if method in ("GET", "DELETE") else json.dumps(body or {})
        try:
            response = httpx.request(
                method,
                url,
                params=API_VERSION,
                content=content,
                headers=self._headers,
                verify=self.tls(url),
                timeout=TIMEOUT_S,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            raise RequestRefused(
                f"no server answers at {self.address.url} ({error}); start one with `safelight serve`"
            ) from None
        if response.is_error:
            raise self._refusal(response)
        return response

    def _refusal(self, response: httpx.Response) -> SafelightError:
        try:
            message = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            message = f"the server answered {response.status_code}: {response.text[:500]}"
        return ResourceNotFound(message) if response.status_code == HTTPStatus.NOT_FOUND else RequestRefused(message)

    def _json(self, response: httpx.Response) -> JsonObject:
        value: JsonObject = response.json() if response.content else {}
        return value

    def _operation(self, response: httpx.Response) -> Operation:
        return Operation(self._json(response), response.headers.get("azure-asyncoperation"))


def _resource_at(path: str) -> str:
    """`/onlineEndpoints/flux/deployments/blue` in words: deployment 'blue' of endpoint 'flux'."""
    kinds = {"onlineEndpoints": "endpoint", "deployments": "deployment", "connections": "connection"}
    parts = path.strip("/").split("/")
    pairs = reversed([*zip(parts[::2], parts[1::2], strict=True)])
    return " of ".join(f"{kinds[kind]} '{name}'" for kind, name in pairs)
