"""Values of a pool's Service and EndpointSlices: desired, and as last observed (requirement D12).

Independent of the JSON of the API server, which `kube.decode_service` converts. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple, TypeVar

from hotpool.api.slice import MemberState
from hotpool.core.model import Identity, Meta

AddressFamily = Literal["IPv4", "IPv6"]
_NO_META: Final = Meta("", "", 0)


class EndpointGroup(NamedTuple):
    """Endpoints that may share an EndpointSlice: it has one address type, and its ports are those of all endpoints."""

    type: str
    """Type of the services, which is the name of the port."""
    family: AddressFamily
    port: int
    """Port of the members, not of the Service."""


class EndpointTarget(NamedTuple):
    """Object behind an endpoint."""

    kind: Literal["NodeCapability", "Pod"]
    namespace: str
    """Namespace of a pod; empty: that of the fleet."""
    name: str
    uid: str


class Backend(NamedTuple):
    """Address of a node's ready service that meets the requirements of a pool."""

    service: str
    group: EndpointGroup
    address: str
    hostname: str | None
    """Name of the node, where it is a DNS label."""
    node_name: str | None
    """Name of the v1 Node, where there is one."""
    target: EndpointTarget


class SliceEndpoint(NamedTuple):
    """One endpoint of an EndpointSlice."""

    address: str
    state: MemberState
    """State that the three conditions express: of a Suspect node Ready, while the type has no Ready endpoint."""
    hostname: str | None
    node_name: str | None
    target: EndpointTarget


class ServicePort(NamedTuple):
    """One port of a Service."""

    name: str
    port: int
    app_protocol: str | None = None


@dataclass(frozen=True, slots=True)
class DesiredService:
    """Service of a pool."""

    name: str
    headless: bool
    ports: tuple[ServicePort, ...]


@dataclass(frozen=True, slots=True)
class DesiredSlice:
    """One EndpointSlice of a pool's Service."""

    group: EndpointGroup
    app_protocol: str | None
    endpoints: tuple[SliceEndpoint, ...]


@dataclass(frozen=True, slots=True)
class StoredService:
    """One Service, reduced to the fields that the operator maintains."""

    meta: Meta
    pool: str
    """Pool in its label; empty without the label."""
    owner: str | None
    """uid of the NodePool that owns it."""
    term: int | None
    """Term of the leader that wrote it; None: no leader did."""
    content: DesiredService
    intact: bool = True
    """False if another field that the operator maintains has a wrong value, such as the selector."""
    deleted: bool = False
    """True while its deletion waits for a finalizer."""


@dataclass(frozen=True, slots=True)
class StoredEndpointSlice:
    """One EndpointSlice, reduced to the fields that the operator maintains."""

    meta: Meta
    pool: str
    """Pool in its label; empty without the label."""
    owner: str | None
    """uid of the Service that owns it."""
    term: int | None
    """Term of the leader that wrote it; None: no leader did."""
    service: str
    """Name of the Service in its label; empty without the label."""
    family: str
    """Its address type, which is immutable."""
    content: DesiredSlice | None
    """None if it holds anything that the operator does not write."""


Stored = TypeVar("Stored", StoredService, StoredEndpointSlice)


@dataclass(slots=True)
class ServiceObjects:
    """Stored Services and EndpointSlices with the label of one pool, by name."""

    services: dict[str, StoredService] = field(default_factory=dict)
    slices: dict[str, StoredEndpointSlice] = field(default_factory=dict)

    def identities(self) -> set[Identity]:
        """Return uid and version of every object."""
        services = {item.meta.identity for item in self.services.values()}
        return services | {item.meta.identity for item in self.slices.values()}

    def changed(self, newer: "ServiceObjects") -> tuple[str, ...]:
        """Return the names of the objects that have another content in a newer state."""
        services = _changed(self.services, newer.services)
        return tuple(sorted(services | _changed(self.slices, newer.slices)))


def _changed(before: Mapping[str, Stored], after: Mapping[str, Stored]) -> set[str]:
    found = [{name: replace(item, meta=_NO_META) for name, item in items.items()} for items in (before, after)]
    return {name for name in {*before, *after} if found[0].get(name) != found[1].get(name)}


def service_of(slice_name: str) -> str:
    """Return the name of the Service that an EndpointSlice of this name belongs to."""
    return slice_name.partition(".")[0]


def slice_name(service: str, group: EndpointGroup, index: int) -> str:
    """Return the name of an EndpointSlice, in which dots separate what may contain dashes."""
    return f"{slice_prefix(service, group)}{index}"


def slice_prefix(service: str, group: EndpointGroup) -> str:
    """Return the part of a name that all EndpointSlices of one group have in common."""
    return f"{service}.{group.type}.{group.family.lower()}.{group.port}."
