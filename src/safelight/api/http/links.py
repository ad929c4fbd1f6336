"""What links begin with: `--public-url`, or else the `Host` of the request, if it is one of this server's names.

Anyone may write anything into `Host`, and a link is read by others: the receiver of a webhook, a cache, a browser. So
links are made of it only where it is known, and a request that must be answered with links is refused where it is not.
Relative links need none of this. `X-Forwarded-*` is never read.
"""

from __future__ import annotations

from fastapi import Request

from safelight.errors import InvalidRequest
from safelight.hosts import canonical_name, is_loopback, name_in_host
from safelight.settings import Settings


def server_url(request: Request, settings: Settings) -> str:
    """Scheme, name and port. Raises InvalidRequest if the request came by a name that is not known to be ours."""
    url = known_server_url(request, settings)
    if url is None:
        host = ", ".join(request.headers.getlist("host")) or "(none)"
        raise InvalidRequest(
            f"the answer holds links to this server, and Host {host[:128]!r} is not known to be its name; whoever runs "
            "it can start it with --public-url URL, or with --allowed-hosts NAME",
            field="Host",
        )
    return url


def known_server_url(request: Request, settings: Settings) -> str | None:
    """As `server_url`; None if the name is not known."""
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    if (url := _url_of_job(request)) is not None:
        return url or None
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not _is_ours(hosts[0], request, settings):
        return None
    return f"{'https' if settings.tls else 'http'}://{hosts[0]}"


def _url_of_job(request: Request) -> str | None:
    """What was known when the job came whose request this is; empty: it came by no name of ours."""
    url: str | None = getattr(request.state, "server_url", None)
    return url


def _is_ours(host: str, request: Request, settings: Settings) -> bool:
    name = name_in_host(host)
    if name is None:
        return False
    address = str((request.scope.get("server") or ("",))[0])  # of the connection's end on this machine
    own = map(canonical_name, (address, settings.host, *settings.allowed_hosts))
    endpoint, _, domain = name.partition(".")
    is_endpoint = bool(endpoint) and domain != "" and domain == settings.base_domain.lower()
    return name in own or is_loopback(name) or is_endpoint
