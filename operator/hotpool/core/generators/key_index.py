"""A generator, what nodes offer to it, and what it made of that: the standing part of requirement D5.

Nodes from which the same keys follow are one group,
so that a change of a node costs a comparison, and keys are derived and counted once for each group, when a plan is
made.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hotpool.api.pool import PoolSpec, PoolTemplateSpec
from hotpool.core.generators.admission import key_rule, pool_name, pool_spec, spec_error
from hotpool.core.generators.key_ranking import KeyRanking
from hotpool.core.generators.key_rule import KeyRule, KeySet
from hotpool.core.model import Generator, NodeView, Pool

MAX_SHARED_KEYS: Final = 10_000
"""Keys that all nodes together may offer by a shared rule: each of them is compared with each group."""
KEYS_PER_STEP: Final = 5_000
"""Keys looked at in one turn of counting: some tens of milliseconds."""


@dataclass(slots=True, eq=False)
class _NodeGroup:
    """Nodes whose keys follow from the same."""

    source: Any
    members: set[str] = field(default_factory=set)
    counted: int = 0
    """Members as the rankings know them."""
    offered: KeySet | None = None
    joined: set[str] = field(default_factory=set)
    """Keys that the members count for: their own, and with a shared rule those of others."""


class KeyIndex:
    """The keys that nodes offer, and how many nodes offer each."""

    def __init__(self, rule: KeyRule[Any] | None) -> None:
        self.rule = rule
        self.ranking, self.refused = KeyRanking(), KeyRanking()
        """Keys that may have pools, and keys that the rule refuses."""
        self._groups: dict[Any, _NodeGroup] = {}
        self._group_of_node: dict[str, _NodeGroup] = {}
        self._groups_to_count: set[_NodeGroup] = set()
        self._own_key_counts: Counter[str] = Counter()
        """With a shared rule: key → groups whose own key it is."""

    def update(self, node: str, view: NodeView | None) -> bool:
        """Take in one node (None: it is gone); True when it counts for other keys than before."""
        before = self._group_of_node.get(node)
        source = self.rule.source(view) if self.rule and view else None
        if source == (before.source if before else None):
            return False
        if before:
            before.members.discard(node)
            self._groups_to_count.add(before)
            del self._group_of_node[node]
        if source is not None:
            group = self._group_of_node[node] = self._groups.setdefault(source, _NodeGroup(source))
            group.members.add(node)
            self._groups_to_count.add(group)
        return True

    def count_step(self) -> bool:
        """Bring the rankings up to date, a bounded part at a time; False: more is to be done before they are."""
        looked_at = 0
        while self._groups_to_count and looked_at < KEYS_PER_STEP:
            group = self._groups_to_count.pop()
            if group.offered is None and group.members:
                group.offered = self._derive(group)
                looked_at += len(self._own_key_counts) + (KEYS_PER_STEP if group.offered.truncated else 0)
            looked_at += 50 + len(group.joined)
            change, group.counted = len(group.members) - group.counted, len(group.members)
            for key in group.joined:
                self._add(key, change)
            if not group.members:
                self._remove_group(group)
        return not self._groups_to_count

    def nodes_over_key_limit(self) -> list[str]:
        """Nodes that offer more keys than count."""
        return self._members(group for group in self._groups.values() if group.offered and group.offered.over_limit)

    def nodes_with_truncated_search(self) -> list[str]:
        """Nodes for which the search for keys ended early."""
        return self._members(group for group in self._groups.values() if group.offered and group.offered.truncated)

    def _members(self, groups: Iterable[_NodeGroup]) -> list[str]:
        return sorted(node for group in groups for node in group.members)

    def _derive(self, group: _NodeGroup) -> KeySet:
        if self.rule is None:
            raise ValueError("nothing is offered without a rule")
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
        return replace(offered, keys=offered.keys.difference(surplus), cut=True) if surplus else offered

    def _add_shared_keys(self, keys: Collection[str], rule: KeyRule[Any]) -> None:
        """Keys that a group offers; for those that are new all others count that join them."""
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
        barred = self.rule is not None and self.rule.refusal_reason(key) is not None
        (self.refused if barred else self.ranking).add(key, nodes)


class GeneratorEntry:
    """A generator with its offers; also what its plans need again: names, specs, and since when keys are empty."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.problem = generator.problem or spec_error(generator.spec)
        """Why no pools can be made."""
        self.rule: KeyRule[Any] | None = None if self.problem else key_rule(generator.spec)
        self.index = KeyIndex(self.rule)
        self._empty_since: dict[str, float] = {}
        self._names: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._specs: dict[str, PoolSpec] = {}
        self._equal_specs: dict[str, PoolSpec] = {}

    @property
    def needs_pairs(self) -> bool:
        """True where a change of languages can matter."""
        return (self.rule is not None and self.rule.needs_pairs) or self.spec.requires.language_pairs is not None

    @property
    def types(self) -> frozenset[str]:
        """The types of which a change can matter."""
        return frozenset(required.type for required in self.spec.requires.types)

    @property
    def spec(self) -> PoolTemplateSpec:
        """What a node must meet before it offers anything."""
        return self.rule.template if self.rule else self.generator.spec.template.spec

    @property
    def node_counts(self) -> Counter[str]:
        """Key → how many nodes offer it."""
        while not self.index.count_step():
            pass
        return self.index.ranking.counts

    def update(self, node: str, view: NodeView | None) -> bool:
        """Take in one node (None: it is gone); True when it offers other keys."""
        return self.index.update(node, view)

    def name(self, key: str) -> str:
        """The name of the key's pool."""
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = pool_name(self.generator.meta.name, key)
            self._keys.setdefault(name, key)
        return name

    def key(self, pool: Pool) -> str | None:
        """The key of a pool of ours: the one in its spec, where its name is that key's; else the one that we knew."""
        made = pool.spec.generated
        if made and self.name(made.key) == pool.meta.name:
            return made.key
        return self._keys.get(pool.meta.name)

    def made_by_current_rule(self, pool: Pool, key: str) -> bool:
        """Whether the rule makes such pools, or the pool is of a rule that the generator had before."""
        made = pool.spec.generated
        rule = self.rule
        return rule is not None and rule.is_valid_key(key) and (made is None or made.kind == rule.kind(key))

    def desired_spec(self, key: str) -> PoolSpec:
        """The spec of the key's pool, made once."""
        spec = self._specs.get(key)
        if spec is None:
            if self.rule is None:
                raise ValueError("no spec without a rule")
            spec = self._specs[key] = pool_spec(self.generator.meta.name, key, self.rule)
        return spec

    def is_known_equal(self, pool: Pool) -> bool:
        """True where the very spec was found equal before: comparing costs more than knowing."""
        return self._equal_specs.get(pool.meta.name) is pool.spec

    def differs(self, pool: Pool, key: str) -> bool:
        """Whether the pool's spec is another than it should be."""
        if pool.spec == self.desired_spec(key):
            self._equal_specs[pool.meta.name] = pool.spec
            return False
        return True

    def empty_since(self, keys: Iterable[str], now: float) -> dict[str, float]:
        """When each of the keys, whose pools are empty now, was first seen so (monotonic seconds)."""
        self._empty_since = {key: self._empty_since.get(key, now) for key in keys}
        return self._empty_since

    def carry_over(self, former: "GeneratorEntry") -> None:
        """The spec changed: what was empty has been so since then."""
        self._empty_since = former._empty_since  # noqa: SLF001 - of the same class.

    def prune(self, keys: Collection[str]) -> None:
        """Forget what was made for other keys."""
        if len(self._names) > 2 * len(keys) + 1000:
            self._names = {key: name for key in keys if (name := self._names.get(key))}
            self._keys = {name: key for key, name in self._names.items()}
            self._specs = {key: spec for key in keys if (spec := self._specs.get(key))}
            self._equal_specs = {name: spec for name in self._keys if (spec := self._equal_specs.get(name))}
