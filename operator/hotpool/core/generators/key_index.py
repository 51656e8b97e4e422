"""Keys that nodes offer to a generator, and the generator's cached names and specs (requirement D5).

Nodes with the same key source form one group. A change of a node costs one comparison; keys are derived and counted
once for each group, when a plan needs them. Pure.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hotpool.api.pool import PoolSpec, PoolTemplateSpec
from hotpool.core.generators.admission import key_rule, pool_name, pool_spec, spec_error
from hotpool.core.generators.key_ranking import KeyRanking
from hotpool.core.generators.key_rule import KeyRule, KeySet
from hotpool.core.matching import MatchResult
from hotpool.core.model import Generator, NodeView, Pool

MAX_SHARED_KEYS: Final = 10_000
"""Bound of the keys of a shared rule, over all nodes: each is compared with each group."""
KEYS_PER_STEP: Final = 5_000
"""Keys counted in one step, which takes some tens of milliseconds."""


@dataclass(slots=True, eq=False)
class _NodeGroup:
    """Nodes with the same key source."""

    source: Any
    members: set[str] = field(default_factory=set)
    counted: int = 0
    """Number of members that the rankings include."""
    offered: KeySet | None = None
    joined: set[str] = field(default_factory=set)
    """Keys that the members count for: their own, and with a shared rule also keys of other groups."""


class KeyIndex:
    """Keys that nodes offer, with the number of nodes for each."""

    def __init__(self, rule: KeyRule[Any] | None) -> None:
        self.rule = rule
        self.ranking, self.refused = KeyRanking(), KeyRanking()
        """Keys that may have a pool, and keys that the rule refuses."""
        self._groups: dict[Any, _NodeGroup] = {}
        self._group_of_node: dict[str, _NodeGroup] = {}
        self._groups_to_count: set[_NodeGroup] = set()
        self._own_key_counts: Counter[str] = Counter()
        """With a shared rule: key → number of groups that offer it themselves."""

    def update(self, node: str, view: NodeView | None, silence: MatchResult | None = None) -> bool:
        """Update one node (None: deleted). Return True if its key source changed. `silence`: as of a pool."""
        before = self._group_of_node.get(node)
        if before and silence:
            source = before.source if silence.state else None
        else:
            source = self.rule.source(view) if self.rule and view else None
        if source == (before.source if before else None):
            return False
        if before:
            before.members.discard(node)
            self._groups_to_count.add(before)
            del self._group_of_node[node]
        if source is not None:
            group = self._groups.get(source)
            if group is None:
                group = self._groups[source] = _NodeGroup(source)
            self._group_of_node[node] = group
            group.members.add(node)
            self._groups_to_count.add(group)
        return True

    def count_step(self) -> bool:
        """Update the rankings by a bounded number of keys. Return True if they are complete."""
        cost = 0
        while self._groups_to_count and cost < KEYS_PER_STEP:
            group = self._groups_to_count.pop()
            if group.offered is None and group.members:
                group.offered = self._derive(group)
                cost += len(self._own_key_counts) + (KEYS_PER_STEP if group.offered.truncated else 0)
            cost += 50 + len(group.joined)
            change, group.counted = len(group.members) - group.counted, len(group.members)
            for key in group.joined:
                self._add(key, change)
            if not group.members:
                self._remove_group(group)
        return not self._groups_to_count

    def nodes_over_key_limit(self) -> list[str]:
        """Return the nodes that offer more keys than allowed."""
        return self._members(group for group in self._groups.values() if group.offered and group.offered.over_limit)

    def nodes_with_truncated_search(self) -> list[str]:
        """Return the nodes for which the search for keys ended early."""
        return self._members(group for group in self._groups.values() if group.offered and group.offered.truncated)

    def _members(self, groups: Iterable[_NodeGroup]) -> list[str]:
        return sorted(node for group in groups for node in group.members)

    def _derive(self, group: _NodeGroup) -> KeySet:
        if self.rule is None:
            raise ValueError("no keys without a rule")
        offered = self.rule.offered(group.source)
        if self.rule.shared:
            offered = self._limit_shared_keys(offered)
        group.joined = set(offered.keys)
        if self.rule.shared:
            group.joined.update(key for key in self._own_key_counts if self.rule.joins(group.source, key))
            self._add_shared_keys(offered.keys, self.rule)
        return offered

    def _limit_shared_keys(self, offered: KeySet) -> KeySet:
        new = sorted(key for key in offered.keys if key not in self._own_key_counts)
        surplus = new[max(0, MAX_SHARED_KEYS - len(self._own_key_counts)) :]
        return replace(offered, keys=offered.keys.difference(surplus), truncated=True) if surplus else offered

    def _add_shared_keys(self, keys: Collection[str], rule: KeyRule[Any]) -> None:
        """Add the keys of a group. Count other groups for each new key that they join."""
        new = [key for key in keys if key not in self._own_key_counts]
        self._own_key_counts.update(keys)
        for other in self._groups.values() if new else ():
            if other.offered is None:
                continue
            for key in new:
                if rule.joins(other.source, key):
                    other.joined.add(key)
                    self._add(key, other.counted)

    def _remove_group(self, group: _NodeGroup) -> None:
        del self._groups[group.source]
        if self.rule is None or not self.rule.shared or group.offered is None:
            return
        self._own_key_counts.subtract(group.offered.keys)
        gone = {key for key in group.offered.keys if not self._own_key_counts[key]}
        for key in gone:
            del self._own_key_counts[key]
        for other in self._groups.values() if gone else ():
            for key in other.joined & gone:
                other.joined.discard(key)
                self._add(key, -other.counted)

    def _add(self, key: str, nodes: int) -> None:
        refused = self.rule is not None and self.rule.refusal_reason(key) is not None
        (self.refused if refused else self.ranking).add(key, nodes)


class GeneratorEntry:
    """A generator, its keys, and the cache of its plans: names, specs, and the times since which keys are empty."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.problem = generator.problem or spec_error(generator.spec)
        """Reason why no pools can be made; None: the spec is valid."""
        self.rule: KeyRule[Any] | None = None if self.problem else key_rule(generator.spec)
        self.index = KeyIndex(self.rule)
        self.matched = True
        """False until every node was matched: before that, the generator must not be planned."""
        self._empty_since: dict[str, float] = {}
        self._names: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._specs: dict[str, PoolSpec] = {}
        self._equal_specs: dict[str, PoolSpec] = {}

    @property
    def needs_pairs(self) -> bool:
        """True if a change of a node's language pairs can affect the keys."""
        return (self.rule is not None and self.rule.needs_pairs) or self.spec.requires.language_pairs is not None

    @property
    def types(self) -> frozenset[str]:
        """Types whose readiness can affect the keys."""
        return frozenset(required.type for required in self.spec.requires.types)

    @property
    def spec(self) -> PoolTemplateSpec:
        """Requirements that a node must meet to offer any key."""
        return self.rule.template if self.rule else self.generator.spec.template.spec

    @property
    def node_counts(self) -> Counter[str]:
        """Number of nodes that offer each key; finishes all counting first."""
        while not self.index.count_step():
            pass
        return self.index.ranking.counts

    def update(self, node: str, view: NodeView | None, silence: MatchResult | None = None) -> bool:
        """Update one node (None: deleted). Return True if its key source changed. `silence`: as of a pool."""
        return self.index.update(node, view, silence)

    def name(self, key: str) -> str:
        """Return the name of the key's pool."""
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = pool_name(self.generator.meta.name, key)
            self._keys.setdefault(name, key)
        return name

    def key(self, pool: Pool) -> str | None:
        """Return the key of a pool of this generator: from its spec if its name belongs to that key, else as cached."""
        generated = pool.spec.generated
        if generated and self.name(generated.key) == pool.meta.name:
            return generated.key
        return self._keys.get(pool.meta.name)

    def made_by_current_rule(self, pool: Pool, key: str) -> bool:
        """Return True if the current rule makes this pool, False if a former rule of the generator did."""
        generated = pool.spec.generated
        rule = self.rule
        return rule is not None and rule.is_valid_key(key) and (generated is None or generated.kind == rule.kind(key))

    def desired_spec(self, key: str) -> PoolSpec:
        """Return the spec of the key's pool, from the cache after the first call."""
        spec = self._specs.get(key)
        if spec is None:
            if self.rule is None:
                raise ValueError("no spec without a rule")
            spec = self._specs[key] = pool_spec(self.generator.meta.name, key, self.rule)
        return spec

    def is_known_equal(self, pool: Pool) -> bool:
        """Return True if `differs` found the same spec object equal before, which saves a comparison."""
        return self._equal_specs.get(pool.meta.name) is pool.spec

    def differs(self, pool: Pool, key: str) -> bool:
        """Return True if the pool's spec differs from the desired one."""
        if pool.spec == self.desired_spec(key):
            self._equal_specs[pool.meta.name] = pool.spec
            return False
        return True

    def empty_since(self, keys: Iterable[str], now: float) -> dict[str, float]:
        """Return the time since which each of these keys, whose pools are empty now, is empty (monotonic seconds)."""
        self._empty_since = {key: self._empty_since.get(key, now) for key in keys}
        return self._empty_since

    def carry_over(self, former: "GeneratorEntry") -> None:
        """Take over the times since which keys are empty, after a change of the spec."""
        self._empty_since = former._empty_since  # noqa: SLF001 - of the same class.

    def prune(self, keys: Collection[str]) -> None:
        """Delete cached names and specs of other keys, if there are many."""
        if len(self._names) > 2 * len(keys) + 1000:
            self._names = {key: name for key in keys if (name := self._names.get(key))}
            self._keys = {name: key for key, name in self._names.items()}
            self._specs = {key: spec for key in keys if (spec := self._specs.get(key))}
            self._equal_specs = {name: spec for name in self._keys if (spec := self._equal_specs.get(name))}
