"""Where a webhook may lead: the registries of special-purpose addresses row by row, from first to last address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest

from safelight.control.jobs.public_addresses import is_public

NOT_GLOBALLY_REACHABLE_IPV4 = [
    *("0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.0.0/29", "192.0.0.8/32", "192.0.0.170/32", "192.0.0.171/32", "192.0.2.0/24"),
    *("192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("240.0.0.0/4", "255.255.255.255/32"),
]
NOT_GLOBALLY_REACHABLE_IPV6 = [
    *("::1/128", "::/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32", "2001:2::/48"),
    *("2001:10::/28", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
]
ANSWERED_BY_THE_NEAREST_GATEWAY = ["192.0.0.9/32", "192.0.0.10/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128"]
OF_OTHER_REGISTRIES = [
    *("224.0.0.0/4", "168.63.129.16/32", "ff00::/8", "fec0::/10", "::/96", "::ffff:0:0:0/96", "64:ff9b:2::/48"),
    *("400::/6", "4000::/3", "8000::/2", "e000::/4", "f800::/6"),
]


def ends_of(block: str) -> list[IPv4Address | IPv6Address]:
    network = ip_network(block)
    return [network[0], network[network.num_addresses // 2], network[-1]]


@pytest.mark.parametrize(
    "block",
    [
        *(*NOT_GLOBALLY_REACHABLE_IPV4, *NOT_GLOBALLY_REACHABLE_IPV6),
        *(*ANSWERED_BY_THE_NEAREST_GATEWAY, *OF_OTHER_REGISTRIES),
    ],
)
def test_no_address_of_a_special_block_is_public(block: str) -> None:
    assert not [each for each in ends_of(block) if is_public(each)]


@pytest.mark.parametrize("prefix", ["::ffff:0:0", "64:ff9b::", "::", "2002::", "::ffff:0:0:0", "64:ff9b:1::"])
@pytest.mark.parametrize("block", NOT_GLOBALLY_REACHABLE_IPV4)
def test_nor_is_one_that_is_written_inside_an_ipv6_address(block: str, prefix: str) -> None:
    shift = 80 if prefix == "2002::" else 0
    inside = [IPv6Address(int(IPv6Address(prefix)) | (int(each) << shift)) for each in ends_of(block)]

    assert not [each for each in inside if is_public(each)]


@pytest.mark.parametrize("block", ["0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "192.0.0.0/24", "192.168.0.0/16"])
def test_the_neighbours_of_a_special_block_are_public(block: str) -> None:
    network = IPv4Network(block)
    below, above = int(network[0]) - 1, int(network[-1]) + 1

    assert all(is_public(IPv4Address(each)) for each in (below, above) if each >= 0)


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "223.255.255.255"),
        *("2606:4700::1111", "2001:200::1", "2003::1", "3ffe:ffff::1", "::ffff:8.8.8.8", "64:ff9b::808:808"),
    ],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))
