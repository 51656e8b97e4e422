"""Drift check: compare the stored with the desired projection (E1), and return the names to write and to delete.

Each check compares all facts and counts, and a part of the contents in rotation. Must only read: the worker decides
when to write. Keys of a wrong type or content count as different, never as an error.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from hotpool.projection.accepted_writes import AcceptedWrites
from hotpool.projection.connection.config import to_text
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.drift_rotation import POOLS_PER_CALL, RANKS_PER_CALL, Rotation, batches
from hotpool.projection.functions import Functions, library_source
from hotpool.projection.keys import STATES, FleetKeys, index_field
from hotpool.projection.stored_state import (
    NODES_PER_CALL,
    chunks,
    parse_node_stamp,
    parse_number,
    parse_stamp,
    scan,
)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Differences between the stored and the desired projection. All sets are empty if there is none.

    `claimed`: Redis has our term. `pools`, `nodes`: names to write. `stray_pools`, `stray_nodes`: stored names that are
    not desired, to delete. `stray_index`: fields of the index without a desired pool.
    """

    claimed: bool
    pools: frozenset[str]
    stray_pools: frozenset[str]
    stray_index: frozenset[str]
    nodes: frozenset[str]
    stray_nodes: frozenset[str]
    undecided: bool = False
    """Redis is not marked as complete, and lacks a pool or node whose write is in progress: it may still fail."""


@dataclass(frozen=True, slots=True)
class _Overview:
    term: int | None
    complete: bool
    pools: frozenset[str]
    nodes: frozenset[str]
    index: dict[str, str]
    endpoints: frozenset[str]
    """Nodes with endpoints. Empty if their number is right."""


@dataclass(slots=True)
class DriftCheck:
    """One comparison. Not reusable."""

    _functions: Functions
    _keys: FleetKeys
    _pool_writes: AcceptedWrites
    _node_writes: AcceptedWrites
    _rotation: Rotation
    endpoints: bool = True
    """False if the writer does not maintain endpoints."""
    _unconfirmed: set[str] = field(default_factory=set)
    """Pools whose last write by this process is not in Redis."""

    async def run(self, term: int, pools: Mapping[str, PoolDocument], nodes: Mapping[str, NodeDocument]) -> DriftReport:
        """Compare. Names written by this process in the meantime are left out. Errors of redis are raised unchanged."""
        pools, nodes = dict(pools), dict(nodes)
        with self._pool_writes.track_names() as busy_pools, self._node_writes.track_names() as busy_nodes:
            overview = await self._overview({name for name, document in nodes.items() if document.endpoints})
            differing_pools = await self._differing_pools(pools, overview)
            differing_nodes = await self._differing_nodes(nodes, overview)
            differing_pools |= await self._pools_with_wrong_contents(
                {name: pools[name] for name in self._rotation.next_pools(pools)}
            )
            differing_nodes |= await self._nodes_with_wrong_contents(
                {name: nodes[name] for name in self._rotation.next_nodes(nodes)}
            )
            for name in self._unconfirmed - busy_pools:
                self._pool_writes.mark_unknown(name)
            return DriftReport(
                claimed=overview.term == term,
                pools=frozenset(differing_pools - busy_pools),
                stray_pools=overview.pools.difference(pools, busy_pools),
                stray_index=_stray_index(pools, overview.index, busy_pools),
                nodes=frozenset(differing_nodes - busy_nodes),
                stray_nodes=(overview.nodes | overview.endpoints).difference(nodes, busy_nodes),
                undecided=not overview.complete
                and not (
                    overview.pools.issuperset(busy_pools & pools.keys())
                    and overview.nodes.issuperset(busy_nodes & nodes.keys())
                ),
            )

    async def _overview(self, with_endpoints: Collection[str]) -> _Overview:
        """Read the names of everything. `with_endpoints`: nodes that have endpoints."""
        keys = [self._keys.meta, self._keys.endpoints][: 1 + self.endpoints]
        digest, *stored = await self._functions.read("overview", keys)
        if to_text(digest) != library_source()[1] or not await self._functions.has_former(self._keys.meta):
            await self._functions.load(self._keys.meta)
            digest, *stored = await self._functions.read("overview", keys)
        index = await scan(self._functions, "hash", self._keys.index)
        term = parse_number(stored[0])
        return _Overview(
            term=None if self.endpoints and parse_number(stored[2]) != term else term,
            complete=to_text(stored[1]) == "1",
            pools=frozenset(await scan(self._functions, "set", self._keys.pools)),
            nodes=frozenset(await scan(self._functions, "set", self._keys.nodes)),
            index=dict(zip(index[::2], index[1::2], strict=True)),
            endpoints=await self._stored_endpoints(parse_number(stored[3]), with_endpoints),
        )

    async def _stored_endpoints(self, size: int | None, expected: Collection[str]) -> frozenset[str]:
        if not self.endpoints or size == len(expected):
            return frozenset()
        return frozenset((await scan(self._functions, "hash", self._keys.endpoints))[::2])

    async def _differing_pools(self, pools: Mapping[str, PoolDocument], overview: _Overview) -> set[str]:
        differing = {name for name, document in pools.items() if not _is_listed(document, overview)}
        for names in chunks(pools, POOLS_PER_CALL):
            keys = [key for name in names for key in (*self._keys.pool(name), self._keys.services(name))]
            if self.endpoints:
                replies = await self._functions.read("pool_facts", keys, ("services",))
            else:
                replies = await self._functions.read(
                    "pool_facts", [key for name in names for key in self._keys.pool(name)]
                )
            differing.update(
                name for name, facts in zip(names, replies, strict=True) if not self._pool_matches(pools[name], facts)
            )
        return differing

    def _pool_matches(self, document: PoolDocument, facts: list[Any]) -> bool:
        stamp = parse_stamp(facts[1], facts[2], facts[3])
        counts, sizes = [parse_number(fact) for fact in facts[4:7]], [parse_number(fact) for fact in facts[7:10]]
        if stamp:
            self._pool_writes.observe_version(stamp.version)
        services = parse_number(facts[10]) == len(document.services.exceptions)
        if stamp is None or counts != sizes or (stamp.digest == document.digest and not services):
            self._unconfirmed.add(document.name)
            return False
        matches = (
            to_text(facts[0]) == document.uid
            and [len(members) for members in document.members] == sizes
            and self._pool_writes.matches(document.name, stamp, document.digest)
        )
        if matches:
            self._pool_writes.record_existing(document.name, stamp)
        elif stamp != self._pool_writes.last_accepted(document.name):
            self._unconfirmed.add(document.name)
        return matches

    async def _differing_nodes(self, nodes: Mapping[str, NodeDocument], overview: _Overview) -> set[str]:
        differing = {name for name in nodes if name not in overview.nodes}
        for names in chunks(nodes, NODES_PER_CALL):
            keys = [self._keys.node(name) for name in names] + ([self._keys.endpoints] if self.endpoints else [])
            reply = await self._functions.read("node_facts", keys, names)
            facts = zip(names, reply[::3], reply[1::3], reply[2::3], strict=True)
            differing.update(
                name
                for name, stored_stamp, size, length in facts
                if not self._node_matches(nodes[name], stored_stamp, size)
                or parse_number(length) != len(nodes[name].endpoints.encode())
            )
        return differing

    def _node_matches(self, document: NodeDocument, stored_stamp: object, size: object) -> bool:
        stamp = parse_node_stamp(stored_stamp)
        if stamp is None:
            return False
        self._node_writes.observe_version(stamp.version)
        return parse_number(size) == len(document.fields()) + 1 and self._node_writes.matches(
            document.name, stamp, document.digest
        )

    async def _pools_with_wrong_contents(self, pools: Mapping[str, PoolDocument]) -> set[str]:
        """Return pools whose facts match and whose members differ, such as after a change by hand."""
        differing: set[str] = set()
        for names in batches(pools):
            differing |= await self._compare_members({name: pools[name] for name in names})
        self._unconfirmed |= differing
        return differing

    async def _compare_members(self, pools: Mapping[str, PoolDocument]) -> set[str]:
        largest = max((len(members) for document in pools.values() for members in document.members), default=0)
        keys = [key for name in pools for key in self._keys.pool(name)]
        held: dict[str, list[set[str]]] = {name: [set() for _ in STATES] for name in pools}
        rewritten: set[str] = set()
        for first in range(0, largest + 1, RANKS_PER_CALL):
            replies = await self._functions.read("pool_contents", keys, (first, first + RANKS_PER_CALL - 1))
            for (name, document), (term, version, digest, *sets) in zip(pools.items(), replies, strict=True):
                accepted = self._pool_writes.last_accepted(name)
                if parse_stamp(term, version, digest) != accepted or to_text(digest) != document.digest:
                    rewritten.add(name)
                for members, items in zip(held[name], sets, strict=True):
                    members.update(map(to_text, items))
        differing = {name for name, sets in held.items() if sets != list(pools[name].members)}
        return (differing | await self._wrong_services(pools)) - rewritten

    async def _wrong_services(self, pools: Mapping[str, PoolDocument]) -> set[str]:
        differing: set[str] = set()
        for name, document in pools.items():
            if self.endpoints and document.services.exceptions:
                flat = await scan(self._functions, "hash", self._keys.services(name))
                if dict(zip(flat[::2], flat[1::2], strict=True)) != document.services.exceptions:
                    differing.add(name)
        return differing

    async def _nodes_with_wrong_contents(self, nodes: Mapping[str, NodeDocument]) -> set[str]:
        differing: set[str] = set()
        for names in chunks(nodes, NODES_PER_CALL):
            hashes = await self._functions.read("hash_contents", [self._keys.node(name) for name in names])
            endpoints = [nodes[name].endpoints for name in names]
            if self.endpoints:
                endpoints = await self._functions.read("hash_values", (self._keys.endpoints,), names)
            for name, reply, stored in zip(names, hashes, endpoints, strict=True):
                words = [to_text(part) for part in reply]
                fields = dict(zip(words[::2], words[1::2], strict=True))
                fields.pop(".facts", None)
                if fields != nodes[name].fields() or to_text(stored) != nodes[name].endpoints:
                    differing.add(name)
        return differing


def _is_listed(document: PoolDocument, overview: _Overview) -> bool:
    indexed = (
        not document.generator
        or overview.index.get(index_field(document.generator, document.key or "")) == document.name
    )
    return indexed and document.name in overview.pools


def _stray_index(pools: Mapping[str, PoolDocument], index: Mapping[str, str], busy: set[str]) -> frozenset[str]:
    desired = {index_field(document.generator, document.key or "") for document in pools.values() if document.generator}
    return frozenset(field for field, name in index.items() if field not in desired and name not in busy)
