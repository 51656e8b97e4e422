"""The operator's cache: observed objects, liveness of nodes, and the match of every node with every pool.

Each method that changes the cache returns the keys to reconcile. A heartbeat that changes nothing returns none. Pure:
no I/O, no tasks, no clock (`now` is monotonic seconds). Only one event loop may change the cache.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from hotpool.core import node_view
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.endpoints.endpoint_index import EndpointIndex
from hotpool.core.endpoints.pod_observations import PodAddresses
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.generators.owner_index import OwnerIndex, affected_generators, changes_ownership
from hotpool.core.lease_cache import LeaseCache
from hotpool.core.match_index import MatchIndex
from hotpool.core.model import (
    KIND_OF_OBJECT,
    Generator,
    Heartbeat,
    Identity,
    Key,
    Kind,
    KubeNode,
    Liveness,
    Node,
    NodeView,
    Observed,
    PodReference,
    Pool,
    Report,
    Slice,
)
from hotpool.core.node_liveness import NodeLivenessTracker, initial_liveness
from hotpool.core.object_versions import ObjectVersions
from hotpool.core.pool_membership import PoolMembership, PoolOrGenerator
from hotpool.core.service_incidents import IncidentQueue
from hotpool.core.service_names import ServiceNames
from hotpool.core.silence_schedule import SilenceSchedule
from hotpool.core.slice_index import SliceIndex

_NODES_PER_STEP = 200


@dataclass(slots=True)
class ClusterCache:
    """Observed state of one fleet."""

    wall_offset: float = 0.0
    """Unix time minus monotonic seconds; converts the times of stored conditions."""
    versions: ObjectVersions = field(default_factory=ObjectVersions)
    nodes: dict[str, NodeLivenessTracker] = field(default_factory=dict)
    kube_nodes: dict[str, KubeNode] = field(default_factory=dict)
    """Every v1 Node, also those without an agent, as of its last relevant change."""
    pools: dict[str, PoolMembership] = field(default_factory=dict)
    generators: dict[str, GeneratorEntry] = field(default_factory=dict)
    owners: OwnerIndex = field(default_factory=OwnerIndex)
    service_names: ServiceNames = field(default_factory=ServiceNames)
    slices: SliceIndex = field(default_factory=SliceIndex)
    gate_open: bool = False
    """True after the first complete listing. A Lease first seen before may be old, so it is no heartbeat (C2)."""
    matches: MatchIndex = field(default_factory=MatchIndex)
    leases: LeaseCache = field(default_factory=LeaseCache)
    endpoints: EndpointIndex = field(default_factory=EndpointIndex)
    ageing: bool = False
    """True while silence that counts is not recorded at every node yet. Until then no silent node leaves a pool."""
    incidents: IncidentQueue = field(default_factory=IncidentQueue)
    _aged: set[Key] = field(default_factory=set)
    """Keys to reconcile when the silence of all nodes that are due is recorded in every pool."""
    _silence: SilenceSchedule = field(default_factory=SilenceSchedule)

    def upsert(self, observed: Observed, now: float, *, restored: bool = False) -> set[Key]:
        """Store an observed object. Ignore an older version, and a late event of a deleted object.

        With `restored`, store it anyway: a fresh response of the API server contains it (requirement C7).
        """
        kind, name = KIND_OF_OBJECT[type(observed)], observed.meta.name
        if not self.versions.accept(kind, name, observed.meta.identity, restored=restored):
            return set()
        match observed:
            case Node():
                return self._upsert_node(observed, now)
            case KubeNode():
                return self._upsert_kube_node(observed)
            case Pool():
                return self._upsert_pool(observed)
            case Slice():
                return self._mark_slices_dirty(self.slices.put(observed))
            case Generator():
                return self._upsert_generator(observed)

    def apply_response(self, stored: Observed, now: float) -> set[Key]:
        """Store the object of a response to our own write, which is no reason to reconcile its pool again.

        Return the other keys that it affects: the response may hold changes that no watch has delivered yet.
        """
        names = stored.pools if isinstance(stored, Slice) else (stored.meta.name,) if isinstance(stored, Pool) else ()
        return self._without_marks(names, lambda: self.upsert(stored, now))

    def apply_deletion(self, deleted: Slice) -> set[Key]:
        """Remove a slice that we deleted, as `apply_response`."""
        return self._without_marks(deleted.pools, lambda: self.delete(Kind.SLICE, deleted.meta.name, deleted.meta.uid))

    def _without_marks(self, names: Iterable[str], change: Callable[[], set[Key]]) -> set[Key]:
        known = [(name, pool, pool.dirty.slices, pool.dirty.status) for name in names if (pool := self.pools.get(name))]
        affected = change()
        for name, pool, slices, status in known:
            if self.pools.get(name) is pool:  # of the same spec
                pool.dirty.slices, pool.dirty.status = slices, status
                affected.discard(Key(Kind.POOL, name))
        return affected

    def delete(self, kind: Kind, name: str, uid: str) -> set[Key]:
        """Remove an object. Do nothing if the cached object of that name has another uid."""
        if not self.versions.remove(kind, name, uid):
            return set()
        match kind:
            case Kind.NODE:
                return self._delete_node(name)
            case Kind.KUBE_NODE:
                del self.kube_nodes[name]
                return self._merge_kube_node(name)
            case Kind.SLICE:
                return self._mark_slices_dirty(self.slices.discard(name))
            case Kind.POOL:
                return self._delete_pool(name)
            case Kind.GENERATOR:
                return self._delete_generator(name)

    def observe_pod(self, pod: PodReference, found: PodAddresses | None) -> set[Key]:
        """Store what was read of a pod that an agent names as a service; None: the read failed."""
        known = ((name, self.nodes[name]) for name in self.endpoints.pods.observe(pod, found))
        return {key for name, tracker in known for key in self._set_view(name, tracker, tracker.view)}

    def apply_policy(self, policy: AddressPolicy) -> Iterator[set[Key]]:
        """Judge the addresses of all nodes by another policy, in steps."""
        self.endpoints.policy = policy
        for name, tracker in list(self.nodes.items()):
            if self.nodes.get(name) is tracker:
                yield self._set_view(name, tracker, tracker.view)

    def identities(self, kind: Kind) -> Mapping[str, Identity]:
        """Return name → uid and version of all objects of a kind: a live view, not a copy."""
        return self.versions.of_kind(kind)

    def record_heartbeat(self, lease: Heartbeat, now: float) -> set[Key]:
        """Store a Lease. It is a heartbeat if its renewTime changed and its holder is the accepted epoch (C2, B8)."""
        before = self.leases.put(lease)
        tracker = self.nodes.get(lease.node)
        report = tracker.view.node.report if tracker else None
        if tracker is None or report is None or report.holder != lease.holder:
            return set()
        if lease.interval is not None and lease.interval != tracker.interval:
            tracker.interval = lease.interval
            self._silence.add(lease.node, tracker)
        if (before.renewed != lease.renewed) if before else self.gate_open:
            return self._apply_heartbeat(lease.node, tracker, now)
        return set()

    def advance(self, now: float, confirmed_until: float = inf) -> set[Key]:
        """Mark silent nodes as Suspect, Offline or expired (requirements C3, C4), and go on with `match_step`.

        `confirmed_until`: the time until which the Lease watch is known to be complete. Silence counts for at most one
        heartbeat interval longer. One call does a bounded amount of work; while there is more, `next_deadline` is not
        later than `now`, and `ageing` lets the brake decide on all silent nodes together (requirement D8). The last
        call returns the keys of all, so that each slice of a fleet that falls silent is written once.
        """
        self._record_silence(now, confirmed_until)
        complete = self.match_step()
        before, self.ageing = self.ageing, self._silence.is_due(now) or bool(self._aged and not self.matches.done)
        if self.ageing:
            return complete
        if before:
            self._aged |= {Key(Kind.POOL, name) for name, pool in self.pools.items() if pool.hold_ended()}
        aged, self._aged = self._aged, set()
        return complete | aged

    def _record_silence(self, now: float, confirmed_until: float) -> None:
        """Record the silence of a bounded number of nodes that are due, but not in the pools yet."""
        self._silence.confirm(self.nodes, confirmed_until)
        for name, tracker in self._silence.take(self.nodes, now, _NODES_PER_STEP):
            view, others = self.endpoints.update(tracker.advance(min(now, confirmed_until + tracker.interval)))
            if view is not tracker.view:
                if node_view.only_silence_differs(tracker.view, view):
                    tracker.view = view
                    self.matches.add_silent(name)
                else:
                    self._aged |= self._replace_view(name, tracker, view)
                self._aged.add(Key(Kind.NODE, name))
            self._aged |= self._apply_endpoints(others)

    def match_step(self) -> set[Key]:
        """Match new pools and generators, silent nodes, and contested ones, a bounded number of times. Return keys."""
        complete, aged = self.matches.step(self.nodes)
        self._aged |= aged
        return complete | self._apply_endpoints()

    def find_orphaned_leases(self, now: float) -> set[Key]:
        """Return the nodes whose Lease is left and not renewed although their NodeCapability was deleted (C4)."""
        return {Key(Kind.NODE, name) for name in self.leases.scan(self.nodes, now)}

    @property
    def is_complete(self) -> bool:
        """True if `match_step` has nothing to do."""
        return self.matches.done and not self.endpoints.contested

    def next_deadline(self) -> float | None:
        """Return the time at which `advance` has work (monotonic seconds), or None."""
        return self._silence.next_due if self.is_complete else 0.0

    def reset_liveness(self, now: float) -> None:
        """Give every node a fresh period after a recovery of the Lease watch (requirement C3)."""
        for name, tracker in self.nodes.items():
            tracker.restart_grace(now)
            self._silence.add(name, tracker)

    def restore_from_slices(self, now: float) -> Iterator[None]:
        """Count listed nodes without a Ready condition as live, in steps, after the first complete listing (C4, D9).

        The former operator listed such a node in a slice, but stopped before it wrote the node's condition.
        """
        unknown = {name for name, tracker in self.nodes.items() if tracker.was_never_judged}
        for slice_ in [item for group in self.slices.values() for item in group.values()] if unknown else ():
            for name in unknown.intersection(member.node for member in slice_.members):
                unknown.discard(name)
                tracker = self.nodes.get(name)
                if tracker and tracker.was_never_judged:
                    tracker.last_heartbeat, tracker.silent_since = now, None
                    self._set_view(name, tracker, replace(tracker.view, liveness=Liveness.LIVE, seen=True))
                    self._silence.add(name, tracker)
                yield
            yield

    def on_leader_acquired(self, now: float) -> Iterator[None]:
        """Take over as leader, in steps; plan nothing before the end.

        Nodes stored as silent by the former leader stay silent until a heartbeat (C4).
        """
        yield from self.restore_from_slices(now)
        for name, tracker in list(self.nodes.items()):
            if self.nodes.get(name) is not tracker:
                continue
            view = tracker.restore(now, self.wall_offset)
            if view is not tracker.view:
                self._set_view(name, tracker, view)
            self._silence.add(name, tracker)
            yield

    def _upsert_node(self, node: Node, now: float) -> set[Key]:
        name = node.meta.name
        tracker = self.nodes.get(name)
        if tracker and tracker.view.node.meta.uid != node.meta.uid:
            return self._delete_node(name) | self._upsert_node(node, now)
        if tracker is None:
            return self._add_node(node, now)
        before = tracker.view
        self.incidents.compare(before.node, node)
        view = node_view.merge_kube_node(node_view.with_report(before, node), self.kube_nodes.get(name))
        fresh = node.report is not None and node_view.report_version(node) != node_view.report_version(before.node)
        if node.report and fresh:
            tracker.interval = self._interval(name, node.report)
            live = tracker.on_heartbeat(now)
            view = node_view.with_silence_of(view, live)
        dirty = self._set_view(name, tracker, view)
        if fresh:
            self._silence.add(name, tracker)
        return dirty

    def _add_node(self, node: Node, now: float) -> set[Key]:
        name = node.meta.name
        tracker = initial_liveness(node, now, known_before=not self.gate_open, wall_offset=self.wall_offset)
        if node.report:
            tracker.interval = self._interval(name, node.report)
        view = node_view.merge_kube_node(node_view.with_report(tracker.view, node), self.kube_nodes.get(name))
        tracker.view, others = self.endpoints.update(view)
        self.nodes[name] = tracker
        self._silence.add(name, tracker)
        return {Key(Kind.NODE, name)} | self.matches.add(name, tracker.view) | self._apply_endpoints(others)

    def _upsert_kube_node(self, kube: KubeNode) -> set[Key]:
        """Update a v1 Node. Ignore the kubelet's status updates every five minutes, which do not affect pools (D4)."""
        name = kube.meta.name
        known = self.kube_nodes.get(name)
        if known and node_view.kube_node_inputs(known) == node_view.kube_node_inputs(kube):
            return set()
        self.kube_nodes[name] = kube
        tracker = self.nodes.get(name)
        adoptable = {Key(Kind.NODE, name)} if tracker and tracker.view.node.owner is None else set()
        return self._merge_kube_node(name) | adoptable

    def _merge_kube_node(self, name: str) -> set[Key]:
        tracker = self.nodes.get(name)
        if tracker is None:
            return set()
        dirty = self._set_view(name, tracker, node_view.merge_kube_node(tracker.view, self.kube_nodes.get(name)))
        self._silence.add(name, tracker)
        return dirty

    def _set_view(self, name: str, tracker: NodeLivenessTracker, view: NodeView) -> set[Key]:
        view, others = self.endpoints.update(view)
        return self._replace_view(name, tracker, view) | self._apply_endpoints(others)

    def _apply_endpoints(self, names: Iterable[str] = ()) -> set[Key]:
        """Update nodes that claim the same address and port as a changed one; if they are many, in steps."""
        dirty = set[Key]()
        for name in self.endpoints.take(names):
            if tracker := self.nodes.get(name):
                dirty |= self._replace_view(name, tracker, self.endpoints.applied(tracker.view))
        return dirty

    def _replace_view(self, name: str, tracker: NodeLivenessTracker, view: NodeView) -> set[Key]:
        before, tracker.view = tracker.view, view
        affected = self.matches.affected(before, view)
        silence = tracker.silence if node_view.only_silence_differs(before, view) else None
        dirty = self.matches.replace(name, before, view, affected, silence)
        if affected or node_view.status_inputs(before) != node_view.status_inputs(view):
            dirty.add(Key(Kind.NODE, name))
        return dirty

    def _apply_heartbeat(self, name: str, tracker: NodeLivenessTracker, now: float) -> set[Key]:
        view = tracker.on_heartbeat(now)
        if view is tracker.view:
            return set()
        dirty = self._set_view(name, tracker, view)
        self._silence.add(name, tracker)
        return dirty

    def _interval(self, name: str, report: Report) -> float:
        """Return H in seconds: from the Lease of the report's epoch, else from the report."""
        lease = self.leases.get(name)
        return lease.interval if lease and lease.interval and lease.holder == report.holder else report.interval

    def _upsert_pool(self, pool: Pool) -> set[Key]:
        name = pool.meta.name
        known = self.pools.get(name)
        if known and known.pool.meta.uid == pool.meta.uid and known.pool.spec == pool.spec:
            before, known.pool, known.dirty.status = known.pool, pool, True
            self.owners.drop(before)
            self.owners.put(pool)
            affected = (
                self._affected_generators(before) | self._affected_generators(pool)
                if changes_ownership(before, pool)
                else set()
            )
            return {Key(Kind.POOL, name), *affected}
        deleted = self._delete_pool(name) if known else set()
        entry = PoolMembership(pool)
        if known and known.pool.meta.uid == pool.meta.uid:
            entry.carry_over(known)
        self.pools[name] = entry
        self.owners.put(pool)
        rivals = {Key(Kind.POOL, other) for other in self.service_names.put(pool)}
        return deleted | self._insert(Key(Kind.POOL, name), entry) | self._affected_generators(pool) | rivals

    def _upsert_generator(self, generator: Generator) -> set[Key]:
        name = generator.meta.name
        known = self.generators.get(name)
        if known and known.generator.meta.uid == generator.meta.uid and known.generator.spec == generator.spec:
            known.generator = generator
            return {Key(Kind.GENERATOR, name)}
        deleted = self._delete_generator(name) if known else set()
        entry = GeneratorEntry(generator)
        if known and known.generator.meta.uid == generator.meta.uid:
            entry.carry_over(known)
        self.generators[name] = entry
        return deleted | self._insert(Key(Kind.GENERATOR, name), entry)

    def _insert(self, key: Key, entry: PoolOrGenerator) -> set[Key]:
        self.matches.insert(key, entry, self.nodes)
        return self.match_step()

    def _delete_pool(self, name: str) -> set[Key]:
        entry = self.pools.pop(name)
        self.owners.drop(entry.pool)
        self.matches.remove(key := Key(Kind.POOL, name))
        rivals = {Key(Kind.POOL, other) for other in self.service_names.remove(entry.pool)}
        return {key} | self._affected_generators(entry.pool) | rivals

    def _delete_generator(self, name: str) -> set[Key]:
        del self.generators[name]
        self.matches.remove(key := Key(Kind.GENERATOR, name))
        return {key}

    def _delete_node(self, name: str) -> set[Key]:
        tracker = self.nodes.pop(name)
        self._silence.discard(name)
        dirty = self.matches.discard(name, tracker.view) | self._apply_endpoints(self.endpoints.remove(name))
        return dirty | {Key(Kind.NODE, name)}

    def _mark_slices_dirty(self, pools: Iterable[str]) -> set[Key]:
        for pool in pools:
            if entry := self.pools.get(pool):
                entry.dirty.slices = entry.dirty.status = True
        return {Key(Kind.POOL, pool) for pool in pools}

    def _affected_generators(self, pool: Pool) -> set[Key]:
        """Return the generators that must check the pool after an edit or a deletion by hand (requirement D5)."""
        return {Key(Kind.GENERATOR, name) for name in affected_generators(pool, self.generators)}
