"""What the operator knows: the objects last observed, the liveness of nodes, and the standing verdicts.

Each call returns the keys whose desired state may have changed, and a plain heartbeat returns none. Pure: no clock
(`now` is monotonic seconds), no I/O, no tasks; changed by one event loop only.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from hotpool.core import node_view
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.generators.owner_index import OwnerIndex, affected_generators, changes_ownership
from hotpool.core.lease_cache import LeaseCache
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
    Pool,
    Report,
    Slice,
)
from hotpool.core.node_liveness import NodeLivenessTracker, initial_liveness
from hotpool.core.object_versions import ObjectVersions
from hotpool.core.pool_membership import PoolMembership, PoolOrGenerator

_NODES_PER_TICK = 50
MAX_TERM: Final = 2**30
"""No fleet elects so often: a slice that says more was not written by a leader, and a Lease could not count on."""
_UNCONFIRMED_PAUSE_SECONDS = 1.0
"""Seconds until a node is looked at again whose silence is not proven yet."""


@dataclass(slots=True)
class ClusterCache:
    """All that is observed of one fleet."""

    wall_offset: float = 0.0
    """Unix time minus monotonic seconds, to read the times of stored conditions."""
    versions: ObjectVersions = field(default_factory=ObjectVersions)
    nodes: dict[str, NodeLivenessTracker] = field(default_factory=dict)
    kube_nodes: dict[str, KubeNode] = field(default_factory=dict)
    """Every v1 Node as it was when it last changed in what matters, also those without an agent of ours."""
    pools: dict[str, PoolMembership] = field(default_factory=dict)
    generators: dict[str, GeneratorEntry] = field(default_factory=dict)
    owners: OwnerIndex = field(default_factory=OwnerIndex)
    slices: dict[str, dict[str, Slice]] = field(default_factory=lambda: defaultdict(dict))
    """Pool name → slice name → slice."""
    _pools_of_slice: dict[str, tuple[str, ...]] = field(default_factory=dict)
    gate_open: bool = False
    """False until everything was listed once: what is seen before may be old (requirement C2)."""
    known_types: Counter[str] = field(default_factory=Counter)
    """Type → nodes that report it."""
    largest_term: int = 0
    """The largest term that a slice carries, and that can be one."""
    leases: LeaseCache = field(default_factory=LeaseCache)
    _by_type: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _by_pairs: set[Key] = field(default_factory=set)
    _due: list[tuple[float, str]] = field(default_factory=list)

    def upsert(self, seen: Observed, now: float, *, restored: bool = False) -> set[Key]:
        """Take in one object; events of an older version, or of an object known to be deleted, are dropped.

        `restored`: the API server was asked and holds just this, so what was known is void (requirement C7).
        """
        kind, name = KIND_OF_OBJECT[type(seen)], seen.meta.name
        if not self.versions.accept(kind, name, seen.meta.identity, restored=restored):
            return set()
        match seen:
            case Node():
                return self._upsert_node(seen, now)
            case KubeNode():
                return self._upsert_kube_node(seen)
            case Pool():
                return self._upsert_pool(seen)
            case Slice():
                return self._upsert_slice(seen)
            case Generator():
                return self._upsert_generator(seen)

    def delete(self, kind: Kind, name: str, uid: str) -> set[Key]:
        """An object was deleted; nothing happens when the one known by that name is another one."""
        if not self.versions.remove(kind, name, uid):
            return set()
        match kind:
            case Kind.NODE:
                return self._delete_node(name)
            case Kind.KUBE_NODE:
                del self.kube_nodes[name]
                return self._merge_kube_node(name)
            case Kind.SLICE:
                return self._delete_slice(name)
            case Kind.POOL:
                return self._delete_pool(name)
            case Kind.GENERATOR:
                return self._delete_generator(name)

    def identities(self, kind: Kind) -> Mapping[str, Identity]:
        """Name → uid and version of every object of one kind, as it is now."""
        return self.versions.of_kind(kind)

    def record_heartbeat(self, beat: Heartbeat, now: float) -> set[Key]:
        """Take in a Lease: a heartbeat is a changed renewTime of the accepted epoch (requirements C2, B8)."""
        before = self.leases.put(beat)
        record = self.nodes.get(beat.node)
        report = record.view.node.report if record else None
        if record is None or report is None or report.holder != beat.holder:
            return set()
        if beat.interval is not None and beat.interval != record.interval:
            record.interval = beat.interval
            self._schedule(beat.node, record)
        changed = before is not None and before.renewed != beat.renewed
        return (
            self._apply_heartbeat(beat.node, record, now) if changed or (before is None and self.gate_open) else set()
        )

    def advance(self, now: float, proven: float = inf) -> set[Key]:
        """Let silence take its effect: nodes become Suspect and Offline, and expire (requirements C3, C4).

        `proven`: until when the Lease stream is known to have brought everything; of a node's silence at most one
        interval more counts. Looks at a bounded number of nodes; while more are due, `next_deadline` is not after
        `now`.
        """
        dirty: set[Key] = set()
        for _ in range(_NODES_PER_TICK):
            if not self._due or self._due[0][0] > now:
                break
            due, name = heapq.heappop(self._due)
            record = self.nodes.get(name)
            if record is None or record.due != due:
                continue
            record.due = None
            until = min(now, proven + record.interval)
            view = record.advance(until)
            if view is not record.view:
                dirty |= self._set_view(name, record, view)
            self._schedule(name, record, earliest=now + _UNCONFIRMED_PAUSE_SECONDS if until < now else 0.0)
        return dirty

    def find_orphaned_leases(self, now: float) -> set[Key]:
        """Nodes of which nothing is left but a Lease that nobody renews: somebody deleted the resource (C4)."""
        return {Key(Kind.NODE, name) for name in self.leases.scan(self.nodes, now)}

    def next_deadline(self) -> float | None:
        """When `tick` may have something to do next, or None."""
        return self._due[0][0] if self._due else None

    def reset_liveness(self, now: float) -> None:
        """The Lease stream was deaf until now: every node has a fresh period (requirement C3)."""
        for name, record in self.nodes.items():
            record.restart_grace(now)
            self._schedule(name, record)

    def restore_from_slices(self, now: float) -> set[Key]:
        """Everything was listed once: a node that a slice lists was not silent, though no condition says so (C4, D9).

        Its condition was not written before the former operator ended.
        """
        listed = {m.node for group in self.slices.values() for item in group.values() for m in item.members}
        dirty: set[Key] = set()
        for name in listed & self.nodes.keys():
            record = self.nodes[name]
            view = record.view
            if view.node.report and "Ready" not in view.node.conditions and record.last_heartbeat is None:
                record.last_heartbeat, record.silent_since = now, None
                dirty |= self._set_view(name, record, replace(view, liveness=Liveness.LIVE, seen=True))
                self._schedule(name, record)
        return dirty

    def on_leader_acquired(self, now: float) -> set[Key]:
        """We lead from now on: nodes that the former leader found silent are so until a heartbeat (requirement C4)."""
        dirty: set[Key] = set()
        for name, record in self.nodes.items():
            view = record.restore(now, self.wall_offset)
            if view is not record.view:
                dirty |= self._set_view(name, record, view)
            self._schedule(name, record)
        return dirty

    def _upsert_node(self, node: Node, now: float) -> set[Key]:
        name = node.meta.name
        record = self.nodes.get(name)
        if record and record.view.node.meta.uid != node.meta.uid:
            return self._delete_node(name) | self._upsert_node(node, now)
        if record is None:
            return self._add_node(node, now)
        before = record.view
        view = node_view.merge_kube_node(node_view.with_report(before, node), self.kube_nodes.get(name))
        beats = node.report is not None and node_view.report_version(node) != node_view.report_version(before.node)
        if node.report and beats:
            record.interval = self._interval(name, node.report)
            heard = record.on_heartbeat(now)
            view = replace(view, liveness=heard.liveness, seen=heard.seen, expired=heard.expired)
        dirty = self._set_view(name, record, view)
        if beats:
            self._schedule(name, record)
        return dirty

    def _add_node(self, node: Node, now: float) -> set[Key]:
        name = node.meta.name
        record = initial_liveness(node, now, known_before=not self.gate_open, wall_offset=self.wall_offset)
        if node.report:
            record.interval = self._interval(name, node.report)
        record.view = node_view.merge_kube_node(node_view.with_report(record.view, node), self.kube_nodes.get(name))
        self.nodes[name] = record
        self._schedule(name, record)
        return self._update_known_types(frozenset(), node_view.types(record.view)) | self._update_pools(
            name, record.view, self._entries()
        )

    def _upsert_kube_node(self, kube: KubeNode) -> set[Key]:
        """A v1 Node: what else its kubelet says of it (its status, each five minutes) changes nothing (D4)."""
        name = kube.meta.name
        known = self.kube_nodes.get(name)
        if known and node_view.kube_node_inputs(known) == node_view.kube_node_inputs(kube):
            return set()
        self.kube_nodes[name] = kube
        record = self.nodes.get(name)
        adoptable = {Key(Kind.NODE, name)} if record and record.view.node.owner is None else set()
        return self._merge_kube_node(name) | adoptable

    def _merge_kube_node(self, name: str) -> set[Key]:
        record = self.nodes.get(name)
        return (
            self._set_view(name, record, node_view.merge_kube_node(record.view, self.kube_nodes.get(name)))
            if record
            else set()
        )

    def _set_view(self, name: str, record: NodeLivenessTracker, view: NodeView) -> set[Key]:
        before, record.view = record.view, view
        affected = self._affected_pools(before, view)
        dirty = self._update_known_types(node_view.types(before), node_view.types(view)) | self._update_pools(
            name, view, affected
        )
        return dirty if affected or node_view.status_inputs(before) != node_view.status_inputs(view) else set()

    def _update_pools(self, name: str, view: NodeView | None, keys: Iterable[Key]) -> set[Key]:
        """Judge one node for some subjects; the node itself is always among the dirty keys."""
        return {Key(Kind.NODE, name), *(key for key in keys if self._entry(key).update(name, view))}

    def _affected_pools(self, before: NodeView, after: NodeView) -> set[Key]:
        """The pools and generators that a change of one node can matter to."""
        if node_view.pool_inputs(before) != node_view.pool_inputs(after):
            return set(self._entries())
        affected: set[Key] = set()
        for type_ in node_view.changed_types(before, after):
            affected |= self._by_type.get(type_, set())
        if (before.pairs, before.semantic_pairs) != (after.pairs, after.semantic_pairs):
            affected |= self._by_pairs
        return affected

    def _update_known_types(self, before: frozenset[str], after: frozenset[str]) -> set[Key]:
        """Keep `known_types`; the pools that require a type which became known or unknown are dirty (D2)."""
        dirty: set[Key] = set()
        for type_ in before - after:
            self.known_types[type_] -= 1
            if not self.known_types[type_]:
                del self.known_types[type_]
                dirty |= self._by_type.get(type_, set())
        for type_ in after - before:
            self.known_types[type_] += 1
            if self.known_types[type_] == 1:
                dirty |= self._by_type.get(type_, set())
        for key in dirty:
            if key.kind is Kind.POOL:
                self.pools[key.name].status_dirty = True
        return dirty

    def _apply_heartbeat(self, name: str, record: NodeLivenessTracker, now: float) -> set[Key]:
        view = record.on_heartbeat(now)
        if view is record.view:
            return set()
        dirty = self._set_view(name, record, view)
        self._schedule(name, record)
        return dirty

    def _interval(self, name: str, report: Report) -> float:
        """H: what the Lease of the report's epoch says, else what the report says."""
        lease = self.leases.get(name)
        return lease.interval if lease and lease.interval and lease.holder == report.holder else report.interval

    def _schedule(self, name: str, record: NodeLivenessTracker, earliest: float = 0.0) -> None:
        """See to it that `tick` looks at the node in time; one entry for each node, however often it beats."""
        due = record.next_change
        due = None if due is None else max(due, earliest)
        if due is not None and (record.due is None or due < record.due):
            record.due = due
            heapq.heappush(self._due, (due, name))

    def _upsert_pool(self, pool: Pool) -> set[Key]:
        name = pool.meta.name
        known = self.pools.get(name)
        if known and known.pool.meta.uid == pool.meta.uid and known.pool.spec == pool.spec:
            before, known.pool, known.status_dirty = known.pool, pool, True
            self.owners.drop(before)
            self.owners.put(pool)
            makers = (
                self._affected_generators(before) | self._affected_generators(pool)
                if changes_ownership(before, pool)
                else set()
            )
            return {Key(Kind.POOL, name), *makers}
        dropped = self._delete_pool(name) if known else set()
        subject = PoolMembership(pool)
        self.pools[name] = subject
        self.owners.put(pool)
        dirty = dropped | self._insert_entry(Key(Kind.POOL, name), subject) | self._affected_generators(pool)
        if known and known.pool.meta.uid == pool.meta.uid:
            subject.carry_over(known)
        return dirty

    def _upsert_generator(self, generator: Generator) -> set[Key]:
        name = generator.meta.name
        known = self.generators.get(name)
        if known and known.generator.meta.uid == generator.meta.uid and known.generator.spec == generator.spec:
            known.generator = generator
            return {Key(Kind.GENERATOR, name)}
        dropped = self._delete_generator(name) if known else set()
        subject = GeneratorEntry(generator)
        if known and known.generator.meta.uid == generator.meta.uid:
            subject.carry_over(known)
        self.generators[name] = subject
        return dropped | self._insert_entry(Key(Kind.GENERATOR, name), subject)

    def _insert_entry(self, key: Key, subject: PoolOrGenerator) -> set[Key]:
        for type_ in subject.types:
            self._by_type[type_].add(key)
        if subject.needs_pairs:
            self._by_pairs.add(key)
        for name, record in self.nodes.items():
            subject.update(name, record.view)
        return {key}

    def _delete_entry(self, key: Key, subject: PoolOrGenerator) -> set[Key]:
        for type_ in subject.types:
            self._by_type[type_].discard(key)
        self._by_pairs.discard(key)
        return {key}

    def _delete_pool(self, name: str) -> set[Key]:
        subject = self.pools.pop(name)
        self.owners.drop(subject.pool)
        return self._delete_entry(Key(Kind.POOL, name), subject) | self._affected_generators(subject.pool)

    def _delete_generator(self, name: str) -> set[Key]:
        return self._delete_entry(Key(Kind.GENERATOR, name), self.generators.pop(name))

    def _delete_node(self, name: str) -> set[Key]:
        record = self.nodes.pop(name)
        return self._update_known_types(node_view.types(record.view), frozenset()) | self._update_pools(
            name, None, self._entries()
        )

    def _upsert_slice(self, seen: Slice) -> set[Key]:
        """A slice is in the group of each pool that must look at it: to put it right, or to delete it (D10)."""
        name = seen.meta.name
        if seen.term <= MAX_TERM:
            self.largest_term = max(self.largest_term, seen.term)
        before = self._pools_of_slice.get(name, ())
        for pool in before:
            del self.slices[pool][name]
        for pool in seen.pools:
            self.slices[pool][name] = seen
        self._pools_of_slice[name] = seen.pools
        return self._mark_slices_dirty(*before, *seen.pools)

    def _mark_slices_dirty(self, *pools: str) -> set[Key]:
        for pool in pools:
            if subject := self.pools.get(pool):
                subject.slices_dirty = subject.status_dirty = True
        return {Key(Kind.POOL, pool) for pool in pools}

    def _delete_slice(self, name: str) -> set[Key]:
        pools = self._pools_of_slice.pop(name)
        for pool in pools:
            del self.slices[pool][name]
        return self._mark_slices_dirty(*pools)

    def _affected_generators(self, pool: Pool) -> set[Key]:
        """The generators that put right what was edited, deleted or made by hand (requirement D5)."""
        return {Key(Kind.GENERATOR, name) for name in affected_generators(pool, self.generators)}

    def _entries(self) -> Iterable[Key]:
        yield from (Key(Kind.POOL, name) for name in self.pools)
        yield from (Key(Kind.GENERATOR, name) for name in self.generators)

    def _entry(self, key: Key) -> PoolOrGenerator:
        return self.pools[key.name] if key.kind is Kind.POOL else self.generators[key.name]
