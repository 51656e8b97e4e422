"""What nodes are judged for: a pool's members, and the keys that nodes offer to a generator.

Held and updated by `core.state`, read by `core.plan`. Each keeps one entry for each node, so that a change costs one
judgement and not a scan.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hotpool.api.pool import PoolTemplateSpec
from hotpool.api.slice import MemberState
from hotpool.core import generate
from hotpool.core.judge import Gate, judge
from hotpool.core.model import Generator, NodeView, Pool


@dataclass(slots=True)
class PoolSubject:
    """A pool, the verdict on every node, and the counts that its status shows."""

    pool: Pool
    members: dict[str, MemberState] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    excluded: Counter[Gate] = field(default_factory=Counter)

    @property
    def spec(self) -> PoolTemplateSpec:
        """What the pool requires."""
        return self.pool.spec

    @property
    def needs_pairs(self) -> bool:
        """True where a change of languages can matter."""
        return self.pool.spec.requires.language_pairs is not None

    def update(self, node: str, view: NodeView | None) -> bool:
        """Judge one node (None: it is gone); True when the verdict is another one than before."""
        before = self.members.pop(node, None), self.gates.pop(node, None)
        if before[1] is not None:
            self.excluded[before[1]] -= 1
        verdict = judge(view, self.pool.spec) if view else None
        if verdict and verdict.state is not None:
            self.members[node] = verdict.state
        if verdict and verdict.gate is not None:
            self.gates[node] = verdict.gate
            self.excluded[verdict.gate] += 1
        return before != (self.members.get(node), self.gates.get(node))


@dataclass(slots=True)
class GeneratorSubject:
    """A generator, the keys that each node offers, and how many nodes offer each key."""

    generator: Generator
    offered: dict[str, frozenset[str]] = field(default_factory=dict)
    nodes: Counter[str] = field(default_factory=Counter)
    emptied: dict[str, float] = field(default_factory=dict)
    """Key → when it was first seen to be offered by nobody (monotonic seconds)."""

    @property
    def needs_pairs(self) -> bool:
        """Every rule of this version is about languages."""
        return True

    @property
    def spec(self) -> PoolTemplateSpec:
        """What the template requires."""
        return self.generator.spec.template.spec

    def update(self, node: str, view: NodeView | None) -> bool:
        """Take in the keys of one node (None: it is gone); True when they changed."""
        before = self.offered.pop(node, frozenset())
        after = generate.keys(view, self.generator.spec) if view else frozenset()
        if after:
            self.offered[node] = after
        self.nodes.subtract(before - after)
        self.nodes.update(after - before)
        for key in before - after:
            if not self.nodes[key]:
                del self.nodes[key]
        return before != after

    def empty_since(self, keys: Iterable[str], now: float) -> dict[str, float]:
        """When each of the keys, which nobody offers now, was first seen so; the others start anew."""
        self.emptied = {key: self.emptied.get(key, now) for key in keys}
        return self.emptied


Subject = PoolSubject | GeneratorSubject
