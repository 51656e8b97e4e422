"""CIDRs in settings."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

Network = IPv4Network | IPv6Network


def parse_cidrs(value: Any) -> tuple[Network, ...]:
    """Return the networks of a text, separated by commas. Raises ValueError that names the first bad one.

    A tuple, as the default of a setting, is returned as it is.
    """
    if isinstance(value, tuple):
        return value
    return tuple(_parsed(item.strip()) for item in value.split(",") if item.strip())


def _parsed(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no CIDR: {error}") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError(f"{text!r} is no CIDR: write a range of IPv4 addresses as IPv4")
    return network
