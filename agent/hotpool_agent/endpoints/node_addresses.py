"""Addresses of the node by their source (requirement B13): pure.

Must not know how routes and interfaces are read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Final, NamedTuple

from hotpool.api.capability import AddressSource, NodeAddress
from hotpool.common.ip_addresses import canonical_ip
from hotpool_agent import ip_addresses
from hotpool_agent.ip_addresses import MAX_ADDRESSES
from hotpool_agent.settings import Settings

_TEMPORARY: Final = 0x01
_DUPLICATE: Final = 0x08
_DEPRECATED: Final = 0x20
_TENTATIVE: Final = 0x40
_UNFIT: Final = _TEMPORARY | _DUPLICATE | _DEPRECATED | _TENTATIVE
"""Flags of linux/if_addr.h: an address with one of them soon ends, or is not in use."""


class Inet6(NamedTuple):
    """One IPv6 address of an interface."""

    ip: str
    interface: str
    prefix_length: int
    flags: int

    @property
    def is_fit(self) -> bool:
        """True for an address that lasts and is in use."""
        return not self.flags & _UNFIT


@dataclass(frozen=True, slots=True)
class FoundAddresses:
    """Addresses of the node, and those of them that are the agent's own: of interfaces in its network namespace."""

    addresses: tuple[NodeAddress, ...] = ()
    own: frozenset[str] = frozenset()

    @property
    def ips(self) -> tuple[str, ...]:
        """All addresses in their order."""
        return tuple(address.ip for address in self.addresses)


def found(addresses: Sequence[NodeAddress], interfaces: Iterable[str]) -> FoundAddresses:
    """Return the addresses, and mark those that an interface of the machine has. Every loopback address is one."""
    machine = set(interfaces)
    own = (item.ip for item in addresses if item.ip in machine or ip_addresses.is_loopback(item.ip))
    return FoundAddresses(tuple(addresses), frozenset(own))


def configured(catalogue: Sequence[str], settings: Settings) -> tuple[NodeAddress, ...]:
    """Return the addresses that the agent is given: by people, else by Kubernetes. Empty: routes must be looked at.

    `catalogue`: its `advertise`. HOTPOOL_AGENT_ADVERTISE replaces it.
    """
    if advertised := settings.advertise or tuple(catalogue):
        return _sourced(advertised, "Catalogue")
    if settings.host_network:
        return _sourced(settings.host_ips, "Node")
    return _sourced(settings.pod_ips, "Pod")


def routed(to_api_server: Iterable[str], by_default: Iterable[str], inet6: Sequence[Inet6]) -> tuple[NodeAddress, ...]:
    """Return the source addresses of routes that another machine may connect to.

    `to_api_server`: those to the API server's addresses. `by_default`: those of the default routes, for an API server
    on this machine.
    """
    sources = _lasting(to_api_server, inet6) or _lasting(by_default, inet6)
    return _sourced(sources, "Route")


def _lasting(addresses: Iterable[str], inet6: Sequence[Inet6]) -> tuple[str, ...]:
    replaced = (_replaced(address, inet6) for address in addresses)
    return tuple(address for address in replaced if address and ip_addresses.is_routed(address))


def _replaced(address: str, inet6: Sequence[Inet6]) -> str | None:
    """Return a lasting address of the same network in place of a temporary or deprecated one, or None."""
    entry = next((item for item in inet6 if item.ip == address), None)
    if entry is None or entry.is_fit:
        return address
    network = IPv6Network((entry.ip, entry.prefix_length), strict=False)
    return next(
        (
            item.ip
            for item in inet6
            if item.is_fit
            and item.interface == entry.interface
            and network == IPv6Network((item.ip, item.prefix_length), strict=False)
        ),
        None,
    )


def _sourced(texts: Iterable[str], source: AddressSource) -> tuple[NodeAddress, ...]:
    valid = dict.fromkeys(address for text in texts if (address := canonical_ip(text)))
    return tuple(NodeAddress(ip=address, source=source) for address in list(valid)[:MAX_ADDRESSES])
