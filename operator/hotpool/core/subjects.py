"""What nodes are judged for: a pool's members (and, in `core.offers`, the keys that nodes offer to a generator).

Held and updated by `core.state`, read by `core.plan`. It keeps one entry for each node, so that a change costs one
judgement and not a scan.
"""

from collections import Counter
from dataclasses import dataclass, field

from hotpool.api.pool import PoolTemplateSpec
from hotpool.api.slice import MemberState
from hotpool.core.judge import Gate, judge
from hotpool.core.model import NodeView, Pool
from hotpool.core.offers import GeneratorSubject


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


Subject = PoolSubject | GeneratorSubject
