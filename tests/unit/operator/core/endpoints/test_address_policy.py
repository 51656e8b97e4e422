"""Addresses that are never endpoints, whoever claims them, also inside others (requirement B13)."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool.core.endpoints.address_policy import Address, AddressPolicy, is_loopback

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
POLICY = AddressPolicy(
    allowed_cidrs=EVERYTHING,
    denied_cidrs=(ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")),
    service_cidrs=(ip_network("10.96.0.0/12"), ip_network("fd00:96::/108")),
    api_servers=frozenset({("192.0.2.10", 6443)}),
)
FORBIDDEN = (
    *("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/8", "255.255.255.255/32", "10.1.0.0/16", "10.96.0.0/12"),
    *("::1/128", "::/128", "fe80::/10", "ff00::/8", "fd00:1::/32", "fd00:96::/108"),
)


def of(network: IPv4Network | IPv6Network) -> st.SearchStrategy[Address]:
    first, last = int(network.network_address), int(network.broadcast_address)
    return st.integers(first, last).map(IPv4Address if network.version == 4 else IPv6Address)


forbidden = st.sampled_from([ip_network(item) for item in FORBIDDEN]).flatmap(of)
forbidden_v4 = st.sampled_from([ip_network(item) for item in FORBIDDEN if ":" not in item]).flatmap(of)


def embedded(address: Address) -> list[str]:
    """Return the IPv6 addresses by which a host, a translator or a tunnel reaches an IPv4 address."""
    value = int(address)
    nat64, six_to_four = int(IPv6Address("64:ff9b::")), int(IPv6Address("2002::"))
    numbers = [0xFFFF << 32 | value, nat64 | value, six_to_four | value << 80]
    return [str(IPv6Address(number)) for number in numbers]


@given(forbidden, st.integers(1, 65535))
def test_no_address_of_a_forbidden_range_is_allowed_even_in_an_allowed_range(address: Address, port: int) -> None:
    assert POLICY.refusal(str(address), port)


@given(forbidden_v4, st.integers(1, 65535))
def test_a_forbidden_address_inside_another_one_is_forbidden(address: Address, port: int) -> None:
    for text in embedded(address):
        assert POLICY.refusal(text, port), text


@given(st.one_of(of(ip_network("198.51.100.0/24")), of(ip_network("2001:db8::/32"))), st.integers(1, 65535))
def test_other_addresses_are_allowed_and_so_are_those_that_contain_one(address: Address, port: int) -> None:
    texts = [str(address), *(embedded(address) if isinstance(address, IPv4Address) else [])]
    assert [POLICY.refusal(text, port) for text in texts] == [None] * len(texts)


def test_of_the_api_server_only_address_and_port_together_are_forbidden() -> None:
    assert POLICY.refusal("192.0.2.10", 6443) == "is the API server's, with its port"
    assert POLICY.refusal("::ffff:192.0.2.10", 6443) == "embeds 192.0.2.10, which is the API server's, with its port"
    assert POLICY.refusal("192.0.2.10", 6007) is None


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "fe80::1%eth0", "2001:db8::1%eth0", "10.0.0.01", "1"])
def test_a_text_that_is_no_address_is_refused(text: str) -> None:
    assert POLICY.refusal(text, 80) == "is no IP address"
    assert not POLICY.vouches_for(text)


def test_a_refusal_names_the_range() -> None:
    assert POLICY.refusal("10.1.2.3", 80) == "is in endpoints.deniedCIDRs (10.1.0.0/16)"
    assert POLICY.refusal("10.96.0.1", 80) == "is in the range of Services (10.96.0.0/12)"


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_loopback_addresses_are_allowed_by_a_setting_that_allows_nothing_else(text: str) -> None:
    policy = AddressPolicy(allow_loopback=True)
    assert policy.refusal(text, 80) is None
    assert is_loopback(text)
    assert policy.refusal("169.254.169.254", 80)


@given(st.ip_addresses())
def test_only_addresses_in_allowed_ranges_are_vouched_for(address: Address) -> None:
    ranges = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    policy = AddressPolicy(allowed_cidrs=ranges)
    assert policy.vouches_for(str(address)) == any(address in item for item in ranges)
