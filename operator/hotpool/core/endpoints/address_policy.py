"""Rules for single addresses of endpoints: never allowed, or vouched for by their range (requirement B13). Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")
_BROADCAST: Final = IPv4Address("255.255.255.255")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE: Final = IPv6Network("::/96")
_IPV4_MASK: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Settings and facts of the cluster by which the operator judges an address, whoever claims it."""

    allowed_cidrs: tuple[Network, ...] = ()
    """Ranges that vouch for each address in them."""
    denied_cidrs: tuple[Network, ...] = ()
    """Ranges that are never allowed."""
    service_cidrs: tuple[Network, ...] = ()
    """Ranges of the cluster's Services, which are never allowed."""
    api_servers: frozenset[tuple[str, int]] = frozenset()
    """Addresses of the API server with their ports; only both together are never allowed."""
    trust_agents: bool = True
    """True: picks may answer with addresses that only the node's own agent claims."""
    allow_loopback: bool = False
    """True: picks may answer with loopback addresses, for trials on one machine."""

    def refusal(self, ip: str, port: int) -> str | None:
        """Return why no node may claim this address and port, as a predicate of the address, or None."""
        address = _parse(ip)
        if address is None:
            return "is no IP address"
        for candidate in _meanings(address):
            if problem := self._refusal(candidate, port):
                return problem if candidate == address else f"embeds {candidate}, which {problem}"
        return None

    def _refusal(self, address: Address, port: int) -> str | None:
        if address.is_loopback:
            return None if self.allow_loopback else "is a loopback address"
        if forbidden := _forbidden_class(address):
            return forbidden
        for name, networks in (
            ("endpoints.deniedCIDRs", self.denied_cidrs),
            ("the range of Services", self.service_cidrs),
        ):
            if network := next((network for network in networks if address in network), None):
                return f"is in {name} ({network})"
        return "is the API server's, with its port" if (str(address), port) in self.api_servers else None

    def vouches_for(self, ip: str) -> bool:
        """Return True if an address is in one of the allowed ranges."""
        address = _parse(ip)
        return address is not None and any(address in network for network in self.allowed_cidrs)


def is_loopback(ip: str) -> bool:
    """Return True if an address is, or embeds, a loopback address."""
    address = _parse(ip)
    return address is not None and any(candidate.is_loopback for candidate in _meanings(address))


def _parse(ip: str) -> Address | None:
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


def _forbidden_class(address: Address) -> str | None:
    if address.is_unspecified or address in _THIS_NETWORK:
        return "is unspecified"
    if address.is_link_local:
        return "is link-local"
    if address.is_multicast:
        return "is a multicast address"
    return "is the broadcast address" if address == _BROADCAST else None


def _meanings(address: Address) -> Iterator[Address]:
    """Yield the address, and the IPv4 address to which a translator or tunnel would deliver it."""
    yield address
    if isinstance(address, IPv4Address):
        return
    if embedded := address.ipv4_mapped or address.sixtofour:
        yield embedded
    elif address in _NAT64 or (address in _IPV4_COMPATIBLE and not (address.is_loopback or address.is_unspecified)):
        yield IPv4Address(int(address) & _IPV4_MASK)
