"""Which addresses are the internet's, by the IANA's own tables: Python's `is_global` differs from patch to patch.

https://www.iana.org/assignments/iana-ipv4-special-registry and .../iana-ipv6-special-registry (RFC 6890, RFC 8190), as
of October 2025: a block whose column "Globally Reachable" says False or N/A is refused, and all that is inside it. Some
of that is called reachable there, such as 192.0.0.9 (PCP) and 2001:1::2 (TURN): the nearest gateway answers at those,
and no receiver of a webhook does.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_REFUSED_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by the customers of a provider
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local: where clouds keep credentials
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments: where one cloud kept credentials
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays, deprecated
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast, which has a registry of its own
            "240.0.0.0/4",  # reserved, and broadcast
            "168.63.129.16/32",  # in no registry: behind it each virtual machine of Azure finds its own host
        ),
    )
)
_UNICAST = IPv6Network("2000::/3")
"""All that the IANA gives out (iana-ipv6-unicast-address-assignments). Outside are loopback, unique-local, link-local,
site-local, multicast, 64:ff9b:1::/48, 100::/64, 5f00::/16, IPv4-compatible and IPv4-translated addresses."""
_REFUSED_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: a relay would unpack the IPv4 address inside
            "3fff::/20",  # documentation
        ),
    )
)
_HOLDS_IPV4 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""IPv4-mapped, and NAT64's own: what is connected to is the IPv4 address in the last 32 bits."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is one of the internet, in whatever way an IPv4 address is written inside it."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _REFUSED_IPV4)
    if any(address in block for block in _HOLDS_IPV4):
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _UNICAST and not any(address in block for block in _REFUSED_IPV6)
