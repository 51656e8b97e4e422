"""IP addresses as text: those that clients can connect to. Pure."""

from collections.abc import Iterable
from typing import Final

from hotpool.common.ip_addresses import canonical_ip, parse_ip

MAX_ADDRESSES: Final = 4
"""Addresses of a node in a report."""


def is_ipv6(address: str) -> bool:
    """Return True for a canonical IPv6 address."""
    return ":" in address


def is_loopback(text: str) -> bool:
    """Return True for a loopback address."""
    address = parse_ip(text)
    return address is not None and address.is_loopback


def is_routed(text: str) -> bool:
    """Return True for an address that another machine may connect to: none of loopback, link-local and the like."""
    return is_advertisable(text) and not is_loopback(text)


def is_advertisable(text: str) -> bool:
    """Return True for an address that a node's administrator may advertise, which may be loopback, for trials."""
    address = parse_ip(text)
    return address is not None and not (address.is_link_local or address.is_multicast or address.is_unspecified)


def one_per_family(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the first canonical address of each IP family, in their order."""
    first: dict[bool, str] = {}
    for address in addresses:
        first.setdefault(is_ipv6(address), address)
    return tuple(first.values())


def checked_advertised(text: str) -> str:
    """Return an address that an administrator advertises in its canonical form. Raises ValueError."""
    address = canonical_ip(text)
    if address is None:
        raise ValueError("must be an IP address, without a zone, port or prefix length")
    if not is_advertisable(address):
        raise ValueError("no client can connect to a link-local, multicast or unspecified address")
    return address
