"""Describe a worker node: its name, its addresses, and the names of its objects on the host.

Certificates, command lines and routes agree on these numbers. Must not do anything.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

# A cluster without a worker: nothing is ever sent to these addresses.
DEFAULT_SERVICES = IPv4Network("10.96.0.0/16")
SUBNETS = range(200, 250)


@dataclass(frozen=True)
class Worker:
    """The worker of a cluster; all its addresses are in 10.<subnet>.0.0/16."""

    name: str
    subnet: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def network(self) -> IPv4Network:
        """Everything that is routed into the worker's network namespace."""
        return _network(self.subnet)

    @property
    def host(self) -> IPv4Address:
        """The host's end of the link to the node."""
        return self.network[1]

    @property
    def address(self) -> IPv4Address:
        """The node's own address: kubelet, DNS and the way to the API server."""
        return self.network[2]

    @property
    def pods(self) -> IPv4Network:
        """The addresses of pods."""
        return IPv4Network(f"10.{self.subnet}.64.0/18")

    @property
    def services(self) -> IPv4Network:
        """The addresses of services."""
        return IPv4Network(f"10.{self.subnet}.128.0/17")


def services_of(worker: Worker | None) -> IPv4Network:
    """The addresses of services in a cluster with or without a worker."""
    return worker.services if worker else DEFAULT_SERVICES


def free_subnets(taken: Iterable[IPv4Network]) -> list[int]:
    """The subnets that overlap with none of the networks."""
    known = list(taken)
    return [subnet for subnet in SUBNETS if not any(_network(subnet).overlaps(other) for other in known)]


def link_name(folder: Path) -> str:
    """The host's end of the link, named after the cluster's folder: clusters of two homes may have one name."""
    return f"hp{_digest(folder)}"


def cgroup_name(folder: Path) -> str:
    """The control group below which the cluster's pods are."""
    return f"hotpool-{_digest(folder)}"


def _network(subnet: int) -> IPv4Network:
    return IPv4Network(f"10.{subnet}.0.0/16")


def _digest(folder: Path) -> str:
    # Thirteen characters are what the name of a link has room for.
    return hashlib.sha256(str(folder).encode()).hexdigest()[:12]
