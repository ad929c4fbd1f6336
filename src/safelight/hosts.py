"""Names and addresses of servers, as `Host` and settings have them, in one spelling: so they can be compared."""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?")
MAX_PORT = 65_535

_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:(?P<port>[1-9][0-9]{0,4}))?")
_OWN_PORTS = {"http": "80", "https": "443"}


def name_in_host(field: str) -> str | None:
    """The name or address in a `Host` field (RFC 9110, section 7.2); None if the field is no name with a port or none.

    Strict, because links are made of the field: no user, path, percent sign, port that is none, or
    letter that is not ASCII.
    """
    match = _HOST.fullmatch(field)
    if match is None or int(match["port"] or 0) > MAX_PORT:
        return None
    return canonical_name(match["name"]) or None


def is_name(text: str) -> bool:
    """Whether it is a name or an address and nothing else, an IPv6 address in brackets or without."""
    match = _HOST.fullmatch(text) or _HOST.fullmatch(f"[{text}]")
    return match is not None and match["port"] is None


def is_origin(text: str) -> bool:
    """Whether it is an origin as browsers write it (RFC 6454, section 6.2): what differs in a letter never matches."""
    match = _ORIGIN.fullmatch(text)
    return match is not None and match["port"] != _OWN_PORTS.get(match["scheme"], "")


def canonical_name(name: str) -> str:
    """In lower case, without brackets, zone and final dot; an IPv4 address inside an IPv6 one as itself."""
    name = name.strip("[]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def is_loopback(canonical: str) -> bool:
    """Whether a name in that spelling means the machine that it is looked up on (RFC 6761, section 6.3)."""
    try:
        return ipaddress.ip_address(canonical).is_loopback
    except ValueError:
        return canonical == "localhost" or canonical.endswith(".localhost")
