"""Recorder of Events about pools, generators, nodes and the fleet (requirements C6, D5, D10, D11, E5).

A task of its own posts, one Event at a time, so that no write waits for an Event. No Event is recorded before
`leader_elected`. Must not decide, write anything but Events, or raise into a caller. A transition is recorded after the
response of its write; one that was stored without a response is not recorded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from hotpool.api.generator import GeneratorStatus
from hotpool.api.meta import Condition
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.clock import Clock
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Generator, Key, Kind, Member, Meta, Node, Pool, Slice
from hotpool.core.planning.diff import CreateSlice, DeleteSlice, SliceWrite, UpdateSlice
from hotpool.core.service_incidents import INCIDENT_LINES, ServiceIncident
from hotpool.events.aggregator import Event, EventAggregator, EventDraft, EventObject
from hotpool.events.builders import (
    KINDS,
    MembershipDifference,
    changed_conditions,
    compare_members,
    membership_changed,
    service_incident,
)
from hotpool.events.last_applied import LastApplied
from hotpool.events.membership_log import MembershipLog
from hotpool.events.messages import Group
from hotpool.observability.metrics import EVENTS, SERVICE_INCIDENTS

log = structlog.get_logger(__name__)

T = TypeVar("T")

TICK_SECONDS: Final = 0.5
"""Time in which Events are aggregated before they are posted."""

Post = Callable[[Event], Awaitable[None]]
"""Posts one Event. Raises WriteError."""
_SliceState = tuple[tuple[Member, ...], str | None, bool]
"""Fields of a slice that the operator maintains: members, owner, labelled."""


@dataclass(frozen=True, slots=True)
class _ComponentHealth:
    """Health of a component, the time of its last change, and True if that change was reported by an Event."""

    healthy: bool
    since: float
    reported: bool


class EventRecorder:
    """Recorder of one fleet."""

    def __init__(self, cache: ClusterCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._aggregator = EventAggregator()
        self._fleet_object: EventObject | None = None
        """Object that Events about the fleet regard. None: not leading, so that no Event is recorded."""
        self._wake = asyncio.Event()
        self._slices: dict[str, LastApplied[_SliceState]] = {}
        self._pools: dict[str, LastApplied[PoolSpec]] = {}
        self._components: dict[str, _ComponentHealth] = {}
        self.membership_log = MembershipLog(cache, clock)

    async def run(self, post: Post) -> None:
        """Post Events until cancelled. An Event that fails is dropped."""
        while True:
            await self._wake.wait()
            while self._aggregator.waiting:
                await asyncio.sleep(TICK_SECONDS)
                for event in self._aggregator.take(self._clock()):
                    await self._post(post, event)
            self._wake.clear()

    async def _post(self, post: Post, event: Event) -> None:
        try:
            await post(event)
        except Exception as error:  # noqa: BLE001 - a failure to post must not end the operator.
            EVENTS.labels("error").inc()
            log.warning("event not posted", reason=event.reason, regarding=event.regarding.name, error=repr(error))
        else:
            EVENTS.labels("ok").inc()

    def leader_elected(self, term: int, fleet_object: EventObject) -> None:
        """Start recording. Events about the fleet regard `fleet_object`."""
        self._fleet_object = fleet_object
        self._add(fleet_object, EventDraft("Leading", "Elect", f"leads with term {term}"))

    def leader_lost(self) -> None:
        """Stop recording: the next leader does. What this process wrote last is no longer what is stored."""
        self._fleet_object = None
        for pool, applied in self._slices.items():
            if applied.before is not None:
                uncertain = {name: state or applied.before.get(name) for name, state in applied.states.items()}
                self._compare_members(pool, applied.before, uncertain)
        self._slices.clear()
        self._pools.clear()

    def lease_watch_health(self, *, healthy: bool) -> None:
        """Record a change in the health of the Lease watch."""
        lost = "no heartbeats can be received; silence is not counted"
        self._component("LeaseWatch", ("Restored", "heartbeats are received again"), ("Lost", lost), healthy=healthy)

    def target_health(self, target: str, error: str) -> None:
        """Record a change in the health of a target. `error`: empty while it holds the desired state.

        An API server that fails stores no Event about it either.
        """
        if target != "kubernetes":
            name = target.capitalize()
            down = f"writes to {name} fail; membership elsewhere is unaffected: {error}"
            self._component(name, ("Up", f"{name} is complete again"), ("Down", down), healthy=not error)

    def node_watch_health(self, healthy: bool, error: str) -> None:  # noqa: FBT001 - the watch's callback.
        """Record a change in the health of the watch of v1 Nodes."""
        up, lost = "changes of Nodes are received again", f"changes of Nodes have no effect: {error}"
        self._component("NodeWatch", ("Restored", up), ("Lost", lost), healthy=healthy)

    def _component(self, name: str, up: tuple[str, str], down: tuple[str, str], *, healthy: bool) -> None:
        """Emit an Event only when the health changes, and a recovery only if the failure was reported."""
        now, known = self._clock(), self._components.get(name)
        if known and known.healthy is healthy:
            return
        self._components[name] = _ComponentHealth(healthy=healthy, since=now, reported=self._fleet_object is not None)
        if self._fleet_object and not healthy:
            self._add(self._fleet_object, EventDraft(name + down[0], "Watch", down[1], warning=True))
        elif self._fleet_object and known and known.reported:
            text = f"{up[1]}, after {now - known.since:.0f} s"
            self._add(self._fleet_object, EventDraft(name + up[0], "Watch", text))

    @contextmanager
    def slice_round(self, pool: Pool) -> Iterator[None]:
        """Wrap all writes of a pool's slices in one round. Record changed members when all writes succeeded."""
        applied = _tracked(self._slices, pool.meta, self._current_slices(pool))
        if applied.before is None:  # else continue a round that failed
            applied.before = dict(applied.states)
        yield
        found = self._current_slices(pool)
        for name in [name for name, state in applied.states.items() if state is None]:
            applied.set(name, found.get(name))
        before, applied.before = applied.before, None
        difference, reasons = self._compare_members(pool.meta.name, before, applied.states)
        emptied = pool.spec.mode == "DryRun" and not any(_members(applied.states).values())
        self._add_for(Kind.POOL, pool.meta, membership_changed(difference, reasons, emptied_by_dry_run=emptied))

    def _compare_members(
        self, pool: str, before: Mapping[str, _SliceState | None], after: Mapping[str, _SliceState | None]
    ) -> tuple[MembershipDifference, dict[str, str]]:
        """Return the difference and why each node left, and log both. A node that is not known was deleted."""
        difference, membership = compare_members(_members(before), _members(after)), self._cache.pools.get(pool)
        criteria = membership.criteria if membership else {}
        reasons = {node: str(criteria.get(node, "Deleted")) for node in difference.left}
        self.membership_log.add(pool, difference, reasons)
        return difference, reasons

    @contextmanager
    def slice_write(self, pool: Pool, write: SliceWrite) -> Iterator[None]:
        """Wrap one write of a slice and the update of the cache from its response."""
        name, found, wanted = _before_and_after(pool, write)
        applied = self._slices[pool.meta.name]
        edited = applied.is_edited(name, found)
        with applied.write(name):
            yield
        stored = self._current_slices(pool).get(name)
        # Keep the cache's own members if they are equal: a second copy of all members would cost memory.
        applied.set(name, stored if stored == wanted else wanted)
        if edited:
            group = Group.of("slice", [name], rest=" changed by another client: repaired")
            self._add_for(Kind.POOL, pool.meta, EventDraft("SliceRepaired", "UpdateMembers", (group,), warning=True))

    def _current_slices(self, pool: Pool) -> dict[str, _SliceState]:
        return {name: _slice_state(item) for name, item in self._cache.slices.get(pool.meta.name, {}).items()}

    def service_repaired(self, pool: Meta, names: Iterable[str]) -> None:
        """Record that a pool's Service or EndpointSlices, which another client changed, were repaired."""
        group = Group.of("object", names, rest=" changed by another client: repaired")
        self._add_for(Kind.POOL, pool, EventDraft("ServiceRepaired", "UpdateService", (group,), warning=True))

    def services_ejected(self, pool: Meta, names: Iterable[str], sources: int) -> None:
        """Record that dispatchers reported services of a pool as failing. `names`: node and service of each."""
        by = f" ejected by {sources} source{'' if sources == 1 else 's'}: picked last"
        group = Group.of("service", names, rest=by)
        self._add_for(Kind.POOL, pool, EventDraft("ServicesEjected", "Eject", (group,), warning=True))

    def pool_status(self, pool: Pool, status: PoolStatus) -> None:
        """Record changed conditions of a pool whose status was stored."""
        self._conditions(Kind.POOL, pool.meta, _stored_conditions(pool.status.conditions), status.conditions)

    def forget(self, kind: Kind, name: str) -> None:
        """Drop the state of a deleted pool or generator. Its members need no lines: the pool's has their number."""
        if kind is not Kind.POOL:
            self._pools.pop(name, None)
        elif known := self._slices.pop(name, None):
            count = sum(map(len, _members(known.states).values()))
            log.info("pool deleted", pool=name, members=count)

    def begin_pool_writes(self, generator: Generator, wanted: Iterable[str], pools: Mapping[str, Pool]) -> None:
        """Prepare for the writes of a generator's pools. `wanted`: names of the pools to create."""
        ours = {name: pool.spec for name, pool in pools.items() if pool.owner == generator.meta.uid}
        applied = _tracked(self._pools, generator.meta, ours)
        kept = {*ours, *wanted}
        applied.states = {name: spec for name, spec in applied.states.items() if name in kept}

    @contextmanager
    def pool_write(
        self, generator: Generator, name: str, found: PoolSpec | None, wanted: PoolSpec | None
    ) -> Iterator[None]:
        """Wrap one write of a generated pool. `found` is None if it does not exist, `wanted` None to delete it."""
        applied = self._pools[generator.meta.name]
        edited = applied.is_edited(name, found)
        with applied.write(name):
            yield
        applied.set(name, wanted)
        if edited and wanted:
            reason, change = ("PoolRepaired", "edited") if found else ("PoolRecreated", "deleted")
            group = Group.of("generated pool", [name], rest=f" {change} by another client: repaired")
            self._add_for(Kind.GENERATOR, generator.meta, EventDraft(reason, "UpdatePools", (group,), warning=True))

    def generator_status(self, generator: Generator, status: GeneratorStatus) -> None:
        """Record changed conditions of a generator whose status was stored."""
        self._conditions(
            Kind.GENERATOR, generator.meta, _stored_conditions(generator.status.conditions), status.conditions
        )

    def node_conditions(self, node: Node, conditions: Iterable[Condition]) -> None:
        """Add an Event for each condition of a node that differs from the stored one."""
        before = {type_: (known.status, known.reason) for type_, known in node.conditions.items()}
        self._conditions(Kind.NODE, node.meta, before, conditions)

    def service_incidents(self, incidents: Iterable[ServiceIncident]) -> None:
        """Record failures, flapping and refused commands of services: a log line and an Event each."""
        for incident in incidents if self._fleet_object else ():
            SERVICE_INCIDENTS.labels(incident.reason).inc()
            log.warning(INCIDENT_LINES[incident.reason], **incident._asdict())
            if tracker := self._cache.nodes.get(incident.node):
                self._add_for(Kind.NODE, tracker.view.node.meta, service_incident(incident))

    def node_deleted(self, node: Meta, objects: str) -> None:
        """Record that `objects` of a node silent for 600 s were deleted."""
        self._add_for(Kind.NODE, node, EventDraft("CleanedUp", "Delete", f"silent for 600 s: {objects} deleted"))

    def write_rejected(self, key: Key, error: str) -> None:
        """Record that the API server refused a write, for example because other clients filled the conditions."""
        known = self._cache.identities(key.kind).get(key.name)
        if known:
            regarding = EventObject(KINDS[key.kind], key.name, known.uid)
            self._add(regarding, EventDraft("WriteRefused", "Write", f"will be retried: {error}", warning=True))

    def _conditions(
        self, kind: Kind, meta: Meta, before: Mapping[str, tuple[str, str]], after: Iterable[Condition]
    ) -> None:
        for draft in changed_conditions(kind, before, after):
            self._add_for(kind, meta, draft)

    def _add_for(self, kind: Kind, meta: Meta, draft: EventDraft | None) -> None:
        if draft:
            self._add(EventObject(KINDS[kind], meta.name, meta.uid), draft)

    def _add(self, regarding: EventObject, draft: EventDraft) -> None:
        if self._fleet_object is None:
            return
        if not self._aggregator.add(regarding, draft, self._clock.timestamp(), self._clock()):
            EVENTS.labels("dropped").inc()
        self._wake.set()


def _tracked(owners: dict[str, LastApplied[T]], owner: Meta, found: Mapping[str, T]) -> LastApplied[T]:
    """Return the children of an owner as last written; at first, or after the owner was created again, as `found`."""
    known = owners.get(owner.name)
    if known is None or known.uid != owner.uid:
        known = owners[owner.name] = LastApplied(owner.uid, {**found})
    return known


def _members(states: Mapping[str, _SliceState | None]) -> dict[str, tuple[Member, ...]]:
    return {name: state[0] for name, state in states.items() if state}


def _before_and_after(pool: Pool, write: SliceWrite) -> tuple[str, _SliceState | None, _SliceState | None]:
    """Return the slice's name, its state before the write, and after it."""
    match write:
        case CreateSlice(name, members):
            return name, None, (members, pool.meta.uid, True)
        case UpdateSlice(known, members):
            return known.meta.name, _slice_state(known), (members, pool.meta.uid, True)
        case DeleteSlice(known):
            return known.meta.name, _slice_state(known), None


def _slice_state(item: Slice) -> _SliceState:
    return item.members, item.owner, item.labelled


def _stored_conditions(conditions: Iterable[Condition]) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in conditions}
