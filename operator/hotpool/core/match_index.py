"""Matches of all nodes with all pools and generators: at once for a change of one node, in steps for changes of many.

Pure. Steps are bounded because 10,000 nodes and 132 pools have 1.3 million matches.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from hotpool.core import node_view
from hotpool.core.declared_words import DeclaredWords
from hotpool.core.matching import MatchResult
from hotpool.core.model import Key, NodeView
from hotpool.core.node_liveness import NodeLivenessTracker
from hotpool.core.pool_membership import PoolMembership, PoolOrGenerator

_MATCHES_PER_STEP = 2000
_COST_OF_FIRST_MATCH: Final = 4
"""Cost of a match of all requirements, as a multiple of one of silence alone."""


@dataclass(slots=True)
class MatchIndex:
    """Pools and generators of one fleet, by what they depend on."""

    known_types: Counter[str] = field(default_factory=Counter)
    """Type → number of nodes that report it."""
    declared: DeclaredWords = field(default_factory=DeclaredWords)
    """Attributes that the services of all nodes declare."""
    _entries: dict[Key, PoolOrGenerator] = field(default_factory=dict)
    _by_type: dict[str, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _by_pairs: set[Key] = field(default_factory=set)
    _by_hardware: set[Key] = field(default_factory=set)
    _unmatched: dict[Key, Iterator[str]] = field(default_factory=dict)
    """Pool or generator → nodes to match it with: all if its spec is new, else those that fell silent."""
    _silent: list[str] = field(default_factory=list)
    """Nodes that fell silent, but not in the pools yet."""

    def insert(self, key: Key, entry: PoolOrGenerator, nodes: Iterable[str]) -> None:
        """Add a pool or generator with another spec, to be matched with all nodes by `step`."""
        self._entries[key] = entry
        for type_ in entry.types:
            self._by_type[type_].add(key)
        if entry.needs_pairs:
            self._by_pairs.add(key)
        if entry.spec.requires.hardware:
            self._by_hardware.add(key)
        entry.matched, self._unmatched[key] = False, iter(tuple(nodes))

    def remove(self, key: Key) -> None:
        """Remove a pool or generator."""
        for type_ in self._entries.pop(key).types:
            self._by_type[type_].discard(key)
            if not self._by_type[type_]:
                del self._by_type[type_]
        self._by_pairs.discard(key)
        self._by_hardware.discard(key)
        self._unmatched.pop(key, None)

    def affected(self, before: NodeView, after: NodeView) -> Collection[Key]:
        """Return the pools and generators that a change of one node can affect."""
        if node_view.pool_inputs(before) != node_view.pool_inputs(after):
            return self._entries
        affected: set[Key] = set()
        for type_ in node_view.changed_types(before, after):
            affected |= self._by_type.get(type_, set())
        if (before.pairs, before.semantic_pairs) != (after.pairs, after.semantic_pairs):
            affected |= self._by_pairs
        if self._by_hardware and node_view.hardware(before) != node_view.hardware(after):
            affected |= self._by_hardware
        return affected

    def add(self, name: str, view: NodeView) -> set[Key]:
        """Match a new node with all. Return the keys with another result."""
        return self._update_known(None, view) | self._match(name, view, self._entries)

    def replace(
        self, name: str, before: NodeView, after: NodeView, keys: Iterable[Key], silence: MatchResult | None
    ) -> set[Key]:
        """Match a changed node with those that are affected. Return the keys with another result.

        `silence`: the result of `match_silence`, if only the node's silence differs.
        """
        known = self._update_known(before, after)
        return known | self._match(name, after, keys, silence)

    def discard(self, name: str, view: NodeView) -> set[Key]:
        """Remove a node from all. Return the keys with another result."""
        return self._update_known(view, None) | self._match(name, None, self._entries)

    def add_silent(self, name: str) -> None:
        """Let `step` match a node of which only the silence differs."""
        self._silent.append(name)

    def step(self, nodes: Mapping[str, NodeLivenessTracker]) -> tuple[set[Key], set[Key]]:
        """Match a bounded number of times. Return the new keys that are complete, and the others with another result.

        One pool after the other, because the dictionaries of pools of one size grow at the same node.
        """
        if self._silent and not self._unmatched:
            silent, self._silent = self._silent, []
            self._unmatched = {key: iter(silent) for key in self._entries}
        complete, changed = set[Key](), set[Key]()
        left = _MATCHES_PER_STEP
        while self._unmatched and left > 0:
            key, names = next(iter(self._unmatched.items()))
            entry = self._entries[key]
            cost = 1 if entry.matched else _COST_OF_FIRST_MATCH
            room = -(-left // cost)
            step = [*islice(names, room)]
            results = [entry.update(name, t.view, t.silence) for name in step if (t := nodes.get(name))]
            left -= 1 + cost * len(step)
            if entry.matched and any(results):
                changed.add(key)
            if len(step) < room:
                del self._unmatched[key]
                complete |= set() if entry.matched else {key}
                entry.matched = True
        return complete, changed

    @property
    def done(self) -> bool:
        """True if `step` has nothing to do."""
        return not self._unmatched and not self._silent

    def _match(
        self, name: str, view: NodeView | None, keys: Iterable[Key], silence: MatchResult | None = None
    ) -> set[Key]:
        entries = self._entries
        return {key for key in keys if entries[key].update(name, view, silence)}

    def _update_known(self, view: NodeView | None, newer: NodeView | None) -> set[Key]:
        """Update types and declared words. Return the keys that require a type of which one became known or unknown."""
        before, after = (node_view.types(one) if one else frozenset() for one in (view, newer))
        words, newer_words = (node_view.declared(one) if one else frozenset() for one in (view, newer))
        changed = self.declared.replace(words, newer_words) if words != newer_words else set[str]()
        for type_ in before - after:
            self.known_types[type_] -= 1
            if not self.known_types[type_]:
                del self.known_types[type_]
                changed.add(type_)
        for type_ in after - before:
            self.known_types[type_] += 1
            if self.known_types[type_] == 1:
                changed.add(type_)
        dirty = {key for type_ in changed for key in self._by_type.get(type_, ())}
        for key in dirty:
            entry = self._entries[key]
            if isinstance(entry, PoolMembership):
                entry.dirty.status = True
        return dirty
