"""Desired Service and EndpointSlices of one pool, and the writes that lead to them (requirement D12).

Pure. The packing is that of the pool's own slices, with addresses in the place of nodes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.api.meta import SLICE_MAX
from hotpool.api.slice import MemberState
from hotpool.core.model import Member, Pool
from hotpool.core.planning.pool_plan import MERGE_SECONDS
from hotpool.core.planning.slice_packing import Packing, merge, pack, slice_to_merge
from hotpool.core.pool_membership import PoolMembership
from hotpool.core.service_model import (
    Backend,
    DesiredService,
    DesiredSlice,
    EndpointGroup,
    ServicePort,
    SliceEndpoint,
    StoredEndpointSlice,
    StoredService,
    slice_name,
    slice_prefix,
)
from hotpool.core.service_names import service_name

Allows = Callable[[str], bool]
"""Function that returns True for an address that EndpointSlices may contain."""
_Candidate = tuple[MemberState, Backend]
_PREFERENCE: Final[Mapping[MemberState, int]] = {"Ready": 0, "Suspect": 1, "Draining": 2}


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """Desired state of one pool's Service."""

    service: DesiredService | None
    """None: the pool has no Service."""
    slices: Mapping[str, DesiredSlice]
    """Name of an EndpointSlice → content."""
    merge_at: float | None = None
    """Earliest time of the next merge of EndpointSlices (monotonic seconds)."""
    recheck_at: float | None = None
    """Time of the next plan even if nothing changes (monotonic seconds); None: no need."""


NO_SERVICE: Final = ServicePlan(None, {})


@dataclass(frozen=True, slots=True)
class SliceDiff:
    """Writes of EndpointSlices. Removals of whole slices are the last, so that a move adds before it removes."""

    create: Mapping[str, DesiredSlice]
    update: tuple[tuple[StoredEndpointSlice, DesiredSlice], ...]
    delete: tuple[StoredEndpointSlice, ...]
    """Surplus ones, and those that only another object of the same name can replace, in the next round."""

    def __bool__(self) -> bool:
        """Return True if there is anything to write."""
        return bool(self.create or self.update or self.delete)


def plan_service(
    membership: PoolMembership,
    published: Mapping[str, MemberState],
    stored: Mapping[str, StoredEndpointSlice],
    allows: Allows,
    *,
    now: float,
    merge_at: float | None = None,
) -> ServicePlan:
    """Plan the Service of a pool that may have one.

    `published`: node → state. `stored`: EndpointSlices by name. `now`, `merge_at`: monotonic seconds.
    """
    pool = membership.pool
    desired = desired_service(pool)
    if desired is None:
        return NO_SERVICE
    protocols = {port.name: port.app_protocol for port in desired.ports}
    groups = _endpoints(membership, published, allows)
    packings = {
        group: pack(
            _packing(desired.name, group, stored),
            {address: endpoint.state for address, endpoint in endpoints.items()},
            SLICE_MAX,
            "",
        ).slices
        for group, endpoints in groups.items()
    }
    merge_at, recheck_at = _merge_if_due(packings, now, merge_at)
    slices = {
        slice_name(desired.name, group, index): DesiredSlice(
            group, protocols[group.type], tuple(groups[group][member.node] for member in members)
        )
        for group, packing in packings.items()
        for index, members in packing.items()
        if members
    }
    return ServicePlan(desired, slices, merge_at, recheck_at)


def desired_service(pool: Pool) -> DesiredService | None:
    """Return the Service that the spec of a pool asks for, or None."""
    service, name = pool.spec.service, service_name(pool)
    if service is None or name is None:
        return None
    ports = tuple(ServicePort(port.type, port.port, port.app_protocol) for port in service.ports)
    return DesiredService(name, service.cluster_ip == "None", ports)


def _endpoints(
    membership: PoolMembership, published: Mapping[str, MemberState], allows: Allows
) -> dict[EndpointGroup, dict[str, SliceEndpoint]]:
    """Return the endpoints by group and address: one for each service and family, each address once in a group."""
    found: dict[EndpointGroup, dict[str, _Candidate]] = {}
    for node, state in published.items():
        for backend in _first_of_each_family(membership.backends.get(node, ()), allows):
            group = found.setdefault(backend.group, {})
            rival = group.get(backend.address)
            if rival is None or _rank(state, backend) < _rank(*rival):
                group[backend.address] = (state, backend)
    ready = {group.type for group, places in found.items() if any(state == "Ready" for state, _ in places.values())}
    return {
        group: {address: _endpoint(*candidate, ready) for address, candidate in places.items()}
        for group, places in sorted(found.items())
    }


def _first_of_each_family(backends: tuple[Backend, ...], allows: Allows) -> Iterator[Backend]:
    seen = set[tuple[str, EndpointGroup]]()
    for backend in backends:
        if (place := (backend.service, backend.group)) not in seen and allows(backend.address):
            seen.add(place)
            yield backend


def _rank(state: MemberState, backend: Backend) -> tuple[int, str, str]:
    """Return the order of two claims to one address, which does not depend on the order of the nodes."""
    return (_PREFERENCE[state], backend.target.name, backend.service)


def _endpoint(state: MemberState, backend: Backend, ready: set[str]) -> SliceEndpoint:
    """Return an endpoint. A Suspect one counts as Ready while its type has no Ready one, so that it is used last."""
    shown: MemberState = "Ready" if state == "Suspect" and backend.group.type not in ready else state
    return SliceEndpoint(backend.address, shown, backend.hostname, backend.node_name, backend.target)


def _packing(service: str, group: EndpointGroup, stored: Mapping[str, StoredEndpointSlice]) -> Packing:
    """Return slice index → addresses, of stored slices whose name is one that the group would give."""
    prefix, found = slice_prefix(service, group), Packing()
    for name, item in stored.items():
        index = name.removeprefix(prefix)
        if index != name and index.isdecimal() and str(int(index)) == index and item.content:
            found[int(index)] = tuple(Member(e.address, e.state, "") for e in item.content.endpoints)
    return found


def _merge_if_due(
    packings: dict[EndpointGroup, Packing], now: float, merge_at: float | None
) -> tuple[float, float | None]:
    """Merge one slice of one group if allowed now. Return the time of the next allowed merge, and when to plan."""
    allowed = now + MERGE_SECONDS if merge_at is None else merge_at
    for group, packing in packings.items():
        index = slice_to_merge(packing, SLICE_MAX)
        if index is None:
            continue
        if now < allowed:
            return allowed, allowed
        packings[group], allowed = merge(packing, index, SLICE_MAX), now + MERGE_SECONDS
    return allowed, None


def service_differs(stored: StoredService, desired: DesiredService, pool: Pool) -> bool:
    """Return True if a Service must be written. What the API server cannot change is `must_be_replaced`."""
    known = (stored.content.ports, stored.owner, stored.pool)
    return known != (desired.ports, pool.meta.uid, pool.meta.name) or not stored.intact or stored.term is None


def must_be_replaced(stored: StoredService, desired: DesiredService) -> bool:
    """Return True if a Service has the name, but only another object can have the desired kind of cluster IP."""
    return stored.content.headless != desired.headless


def diff_endpoint_slices(
    plan: ServicePlan, pool: Pool, service_uid: str, stored: Mapping[str, StoredEndpointSlice]
) -> SliceDiff:
    """Return the writes of the EndpointSlices of one Service. `stored`: all that belong to it."""
    name = plan.service.name if plan.service else ""
    update: list[tuple[StoredEndpointSlice, DesiredSlice]] = []
    unusable = {item.meta.name for item in stored.values() if not _can_become(item, plan.slices)}
    for item, wanted in plan.slices.items():
        known = stored.get(item)
        if known is None or item in unusable:
            continue
        labels = (known.pool, known.service, known.owner)
        if labels != (pool.meta.name, name, service_uid) or known.content != wanted or known.term is None:
            update.append((known, wanted))
    return SliceDiff(
        create={item: wanted for item, wanted in plan.slices.items() if item not in stored},
        update=tuple(update),
        delete=tuple(stored[item] for item in stored if item in unusable),
    )


def _can_become(stored: StoredEndpointSlice, wanted: Mapping[str, DesiredSlice]) -> bool:
    """Return False if a slice must go: it is surplus, or has another address type, which is immutable."""
    found = wanted.get(stored.meta.name)
    return found is not None and found.group.family == stored.family
