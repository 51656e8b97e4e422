"""IP addresses as text of untrusted origin: one form for each. Pure."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from sys import intern


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address, IPv4 in place of IPv4-mapped IPv6. None: it is invalid, or has a zone."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id is not None else address.ipv4_mapped or address
    return address


def canonical_ip(text: str) -> str | None:
    """Return the address in its one form, or None as `parse_ip`. Interned, as reports repeat them."""
    address = parse_ip(text)
    return None if address is None else intern(str(address))
