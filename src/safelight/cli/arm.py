"""The command line's way to a running server: its ARM surface, with the token from its data directory.

The settings are imported when a server is about to be asked: a shell that completes a command's options asks none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from safelight.control.secrets.private_files import ADMIN_TOKEN_FILE
from safelight.errors import ConfigurationError, ResourceNotFound, SafelightError
from safelight.server.address import ServerAddress, read_address

if TYPE_CHECKING:
    import ssl

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


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a server to one request."""

    status: int
    content: bytes
    status_url: str | None
    """Where an operation that has begun says how far it is."""


def read_access(data_dir: Path) -> tuple[ServerAddress, dict[str, str]]:
    """Where the server over a data directory is, and the headers of its administrator. Raises ConfigurationError."""
    address = read_address(data_dir)
    try:
        token = (data_dir / ADMIN_TOKEN_FILE).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"the administrator's token in {data_dir} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isascii() or not token.isprintable():  # else an error may repeat it
        raise ConfigurationError(f"the file {ADMIN_TOKEN_FILE} in {data_dir} holds no administrator's token")
    return address, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


class Arm:
    """A running server's control plane."""

    def __init__(self, data_dir: Path | None) -> None:
        from safelight.settings import load_settings

        settings = load_settings(data_dir=data_dir)
        self.address, self._headers = read_access(settings.data_dir)
        if settings.public_url is not None:
            self.address = replace(self.address, url=settings.public_url)

    def tls(self, url: str) -> ssl.SSLContext:
        """What the certificate of the server at `url` is checked against."""
        import ssl

        if urlsplit(url).scheme == "http":
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and reads no list of whom to trust
        if self.address.certificate is not None:
            return ssl.create_default_context(cafile=self.address.certificate)
        import httpx  # its list of whom to trust is the same on every system

        return httpx.create_ssl_context(trust_env=False)

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
        answer = self._send("DELETE", path)
        if answer.status == HTTPStatus.NO_CONTENT:
            raise ResourceNotFound(f"there is no {_resource_at(path)}")
        return self._operation(answer)

    def wait(self, operation: Operation, doing: str, detail: Callable[[], str] = str) -> None:
        """Until the operation has ended; `detail` is asked how far it is. Raises RequestRefused if it failed."""
        if operation.status_url is None:
            return
        from rich.console import Console
        from rich.markup import escape

        console = Console(emoji=False, stderr=True, highlight=False)
        with console.status(f"{escape(doing)} ...") as status:
            while (state := self.get(operation.status_url))["status"] == "InProgress":
                status.update(f"{escape(doing)} ... {escape(detail())}")
                time.sleep(POLL_S)
        if state["status"] != "Succeeded":
            error = state["error"]
            raise RequestRefused(f"({error['code']}) {error['message']}")

    def _send(self, method: str, path: str, body: JsonObject | None = None) -> Answer:
        from http.client import HTTPException

        url = path if path.startswith("http") else self.address.url + WORKSPACE + path
        content = None if method in ("GET", "DELETE") else json.dumps(body or {})
        try:
            answer = ask(method, url, content, headers=self._headers, tls=self.tls, timeout_s=TIMEOUT_S)
        except (OSError, ValueError, HTTPException) as error:
            raise RequestRefused(
                f"no server answers at {self.address.url} ({error}); start one with `safelight serve`"
            ) from None
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(answer)
        return answer

    def _json(self, answer: Answer) -> JsonObject:
        try:
            value: JsonObject = json.loads(answer.content) if answer.content else {}
        except ValueError:
            raise RequestRefused(f"what answers at {self.address.url} is no server of ours") from None
        return value

    def _operation(self, answer: Answer) -> Operation:
        return Operation(self._json(answer), answer.status_url)


def ask(
    method: str,
    url: str,
    content: str | None = None,
    *,
    headers: dict[str, str],
    tls: Callable[[str], ssl.SSLContext],
    timeout_s: float,
) -> Answer:
    """One request, by the standard library: httpx takes longer to import than a server to answer.

    Raises OSError or HTTPException if there is no answer, ValueError if the URL is none.
    """
    from http.client import HTTPConnection, HTTPSConnection

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ValueError(f"{url!r} is no address of a server")
    connection = (
        HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        if parts.scheme == "http"
        else HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=tls(url))
    )
    with closing(connection):
        body = None if content is None else content.encode()
        connection.request(method, f"{parts.path}?{urlencode(API_VERSION)}", body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(), response.headers["azure-asyncoperation"])


def _refusal(answer: Answer) -> SafelightError:
    try:
        message = str(json.loads(answer.content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {answer.status}: {answer.content.decode(errors='replace')[:500]}"
    return ResourceNotFound(message) if answer.status == HTTPStatus.NOT_FOUND else RequestRefused(message)


def _resource_at(path: str) -> str:
    """`/onlineEndpoints/flux/deployments/blue` in words: deployment 'blue' of endpoint 'flux'."""
    kinds = {"onlineEndpoints": "endpoint", "deployments": "deployment", "connections": "connection"}
    parts = path.strip("/").split("/")
    pairs = reversed([*zip(parts[::2], parts[1::2], strict=True)])
    return " of ".join(f"{kinds[kind]} '{name}'" for kind, name in pairs)
