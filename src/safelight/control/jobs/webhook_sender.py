"""Sends one signed message to an address of the user's choice, and to none that it must not reach.

A host name is resolved here and the connection goes to the very address that was checked: a name that answers
differently the second time (DNS rebinding) gains nothing. Redirects are not followed, and no answer's body is read.
Signatures are those of https://www.standardwebhooks.com.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import httpx

from safelight.control.jobs.public_addresses import is_public
from safelight.errors import InvalidRequest

HEADER = "Webhook-Url"
TIMEOUT_S = 15.0
RESOLVE_TIMEOUT_S = 5.0
MAX_LOOKUPS = 8
MAX_URL_CHARACTERS = 2048

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent, and under which name: the same for each attempt."""

    id: str
    body: bytes

    def signed(self, secret: bytes, timestamp: int) -> Mapping[str, str]:
        """Its header fields."""
        signed = f"{self.id}.{timestamp}.".encode() + self.body
        signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode("ascii")
        return {
            "content-type": "application/json",
            "user-agent": "safelight",
            "webhook-id": self.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": f"v1,{signature}",
        }


class WebhookSender:
    """`allows_private` opens loopback, private and link-local addresses."""

    def __init__(self, *, allows_private: bool, resolve: Resolve | None = None) -> None:
        self._allows_private = allows_private
        self._resolve = resolve or self._look_up
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="webhook-host")
        """Not asyncio's own, where slow names would keep the database waiting."""

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()

    async def check(self, text: str) -> str:
        """The URL, if it is one to send to as far as can be told now. Raises InvalidRequest."""
        if len(text) > MAX_URL_CHARACTERS:  # before it is parsed, which takes long for some
            raise InvalidRequest(f"{HEADER} has more than {MAX_URL_CHARACTERS} characters", field=HEADER)
        try:
            url = httpx.URL(text)
            host = url.host  # decoded when it is asked for, if it is an international name
        except (httpx.InvalidURL, ValueError):
            raise InvalidRequest(f"{HEADER} is no URL", field=HEADER) from None
        has_port = url.port is None or 0 < url.port < 65536
        if url.scheme not in ("http", "https") or not host or not has_port:
            raise InvalidRequest(f"{HEADER} must be an http or https URL", field=HEADER)
        if url.userinfo:
            raise InvalidRequest(f"{HEADER} must be without user and password", field=HEADER)
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                await self._address_of(url)
        except (OSError, UnicodeError):  # a TimeoutError is an OSError
            raise InvalidRequest(f"{HEADER} names a host that cannot be found: {host[:128]}", field=HEADER) from None
        return text

    async def send(self, text: str, content: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer. Raises InvalidRequest if the address is refused, httpx.HTTPError or OSError."""
        url = httpx.URL(text)
        async with asyncio.timeout(TIMEOUT_S):
            address = await self._address_of(url)
            async with (
                httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=TIMEOUT_S) as client,
                client.stream(
                    "POST",
                    url.copy_with(host=address),
                    content=content,
                    headers={**headers, "host": url.netloc.decode("ascii")},
                    extensions={"sni_hostname": url.raw_host.decode("ascii")},
                ) as response,
            ):
                return response.status_code

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, best first. Raises OSError."""
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [str(each[4][0]) for each in found]

    async def _address_of(self, url: httpx.URL) -> str:
        """The one address to connect to; if any of a name's addresses is refused, so is the name."""
        addresses = await self._resolve(
            url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        )
        for address in addresses:
            self._check_address(address)
        return addresses[0]

    def _check_address(self, text: str) -> None:
        """Raises InvalidRequest."""
        address = ipaddress.ip_address(text.partition("%")[0])
        if not self._allows_private and not is_public(address):
            raise InvalidRequest(  # without the address: names of this network are not looked up for strangers
                f"{HEADER} leads to no public address; whoever runs this server can allow it with "
                "SAFELIGHT_WEBHOOKS_TO_PRIVATE_ADDRESSES=true",
                field=HEADER,
            )
