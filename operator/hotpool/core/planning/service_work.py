"""Work on the Service of one pool: stored objects compared with a plan (requirement D12). Pure."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hotpool.core.model import Pool
from hotpool.core.planning.service_plan import (
    ServicePlan,
    SliceDiff,
    diff_endpoint_slices,
    must_be_replaced,
    service_differs,
)
from hotpool.core.service_model import (
    DesiredSlice,
    ServiceObjects,
    StoredEndpointSlice,
    StoredService,
    service_of,
)

Lives = Callable[[str], bool]
"""Function that returns True for the uid of a pool that exists."""


@dataclass(frozen=True, slots=True)
class ServiceWork:
    """A plan, and the stored objects that it is compared with."""

    pool: Pool
    plan: ServicePlan
    known: StoredService | None
    """The Service of the desired name; None: it does not exist."""
    slices: Mapping[str, StoredEndpointSlice]
    """EndpointSlices of the desired Service, by name."""
    surplus: tuple[StoredService, ...]
    """Other Services of the pool."""
    strays: tuple[StoredEndpointSlice, ...]
    """EndpointSlices of no Service that exists."""

    @property
    def replaces_service(self) -> bool:
        """True if the Service has the name, but only another object can have the desired kind of cluster IP."""
        desired, known = self.plan.service, self.known
        return desired is not None and known is not None and must_be_replaced(known, desired)

    @property
    def service_differs(self) -> bool:
        """True if the Service must be created, patched or replaced."""
        desired, known = self.plan.service, self.known
        if desired is None:
            return False
        return known is None or self.replaces_service or service_differs(known, desired, self.pool)

    def diff(self, service_uid: str) -> SliceDiff:
        """Return the writes of EndpointSlices. `service_uid`: of their present owner; empty: it does not exist."""
        return diff_endpoint_slices(self.plan, self.pool, service_uid, self.slices)

    def ended(self, items: Iterable[StoredEndpointSlice]) -> list[StoredEndpointSlice]:
        """Return the EndpointSlices of which no endpoint is desired, in no other one either."""
        desired = {(slice_.group, e.address) for slice_ in self.plan.slices.values() for e in slice_.endpoints}
        return [
            item
            for item in items
            if (content := item.content) and desired.isdisjoint((content.group, e.address) for e in content.endpoints)
        ]

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to write."""
        if self.surplus or self.strays or self.service_differs:
            return False
        return not self.diff(self.known.meta.uid if self.known else "")

    @property
    def change(self) -> Literal["gain", "withdrawal"] | None:
        """Change of the ready endpoints: a withdrawal if one is no longer ready, None without a change."""
        before = {place for item in self.slices.values() for place in _ready(item.content)}
        after = {place for content in self.plan.slices.values() for place in _ready(content)}
        return None if before == after else "gain" if before <= after else "withdrawal"

    @property
    def is_partial(self) -> bool:
        """True if a deletion must be followed by a creation under the same name, in the next round."""
        return any(item.meta.name in self.plan.slices for item in self.diff("").delete)


def _ready(content: DesiredSlice | None) -> set[object]:
    return {(content.group, e.address) for e in content.endpoints if e.state == "Ready"} if content else set()


def is_ours(service: StoredService, pool: Pool, lives: Lives) -> bool:
    """Return True if a Service is of this pool, or a leader wrote it for a former pool of its name.

    Without the right owner, label and term are needed: another client may have set one of them.
    """
    if service.owner == pool.meta.uid:
        return True
    written = service.term is not None and service.pool == pool.meta.name
    return written and (service.owner is None or not lives(service.owner))


def compare(
    pool: Pool, plan: ServicePlan, stored: ServiceObjects, services: Container[str], lives: Lives
) -> ServiceWork:
    """Compare a plan with the stored objects of its pool. `services`: uids of all Services that exist."""
    desired = plan.service.name if plan.service else None
    own = {name: item for name, item in stored.services.items() if is_ours(item, pool, lives)}
    of_service = {name: item for name, item in stored.slices.items() if service_of(name) == desired}
    others = (item for name, item in stored.slices.items() if name not in of_service)
    return ServiceWork(
        pool,
        plan,
        known=own.get(desired) if desired else None,
        slices=of_service,
        surplus=tuple(item for name, item in own.items() if name != desired),
        strays=tuple(item for item in others if item.owner not in services),
    )
