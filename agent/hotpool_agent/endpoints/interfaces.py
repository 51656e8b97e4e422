"""Addresses of this machine's interfaces and routes: I/O that may block.

No function sends a packet: a connected UDP socket only has its source address chosen by the kernel.
"""

import socket
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

import psutil

from hotpool.common.ip_addresses import canonical_ip
from hotpool_agent import ip_addresses
from hotpool_agent.endpoints.node_addresses import Inet6

BEYOND: Final = ("203.0.113.1", "2001:db8::1")
"""Addresses for documentation, which only a default route leads to."""
_DISCARD_PORT: Final = 9
_IPV6_ADDR_PREFERENCES: Final = 72
_PREFER_PUBLIC: Final = 2
"""Constants of linux/in6.h, which the standard library lacks: prefer a lasting source address to a temporary one."""
_INET6: Final = Path("/proc/net/if_inet6")
_FIELDS: Final = 6


def addresses_of(host: str) -> tuple[str, ...]:
    """Return the canonical addresses of a host name or address. Raises OSError."""
    entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    canonical = (canonical_ip(str(address[0])) for *_, address in entries)
    return tuple(dict.fromkeys(address for address in canonical if address))


def source_of_route(address: str) -> str | None:
    """Return the source address of connections to an address, or None without a route."""
    ipv6 = ip_addresses.is_ipv6(address)
    with suppress(OSError), socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as one:
        if ipv6:
            with suppress(OSError):
                one.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC)
        one.connect((address, _DISCARD_PORT))
        return canonical_ip(one.getsockname()[0])
    return None


def interface_addresses() -> frozenset[str]:
    """Return the canonical addresses of all interfaces in this network namespace."""
    entries = (item.address.partition("%")[0] for items in psutil.net_if_addrs().values() for item in items)
    return frozenset(address for text in entries if (address := canonical_ip(text)))


def inet6_addresses() -> tuple[Inet6, ...]:
    """Return the IPv6 addresses with their flags; none without IPv6, or on other systems than Linux."""
    try:
        lines = _INET6.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(item for line in lines if (item := _inet6(line.split())))


def _inet6(fields: list[str]) -> Inet6 | None:
    """Parse a line: address, index, prefix length, scope and flags in hexadecimal, and the interface."""
    if len(fields) != _FIELDS:
        return None
    try:
        ip, prefix_length, flags = str(IPv6Address(bytes.fromhex(fields[0]))), int(fields[2], 16), int(fields[4], 16)
    except ValueError:
        return None
    return Inet6(ip, fields[5], prefix_length, flags)
