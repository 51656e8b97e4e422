"""What nodes are judged for: a pool's members. What they offer to a generator is in `core.generators.key_index`.

It keeps one entry for each node, so that a change costs one
judgement and not a scan.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hotpool.api.pool import PoolTemplateSpec
from hotpool.api.slice import MemberState
from hotpool.core.brake import too_many_silent
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.matching import Criterion, MatchResult, Predicate, first_failure, member_state, predicates
from hotpool.core.model import Liveness, NodeView, Pool

_GONE = MatchResult(None)


@dataclass(slots=True)
class PoolMembership:
    """A pool, the verdict on every node, and the counts that its status shows."""

    pool: Pool
    members: dict[str, MemberState] = field(default_factory=dict)
    criteria: dict[str, Criterion] = field(default_factory=dict)
    excluded: Counter[Criterion] = field(default_factory=Counter)
    unreachable: dict[str, MemberState] = field(default_factory=dict)
    """Nodes that nothing but their silence keeps out, and how they are listed while the brake holds them."""
    suspect: set[str] = field(default_factory=set)
    """Members that are silent for 3 H."""
    retained: set[str] | None = None
    """Silent nodes that the last plan kept, or that were members when they fell silent; None before the first plan."""
    counts: Counter[MemberState] = field(default_factory=Counter)
    """Members by state."""
    dirty_nodes: set[str] = field(default_factory=set)
    """Nodes whose verdict changed since the slices were last known to say what is wanted."""
    slices_dirty: bool = True
    """True while the slices may hold what we did not write."""
    status_dirty: bool = True
    """True while more than counts by reason may differ from what the last plan made of it."""
    merge_at: float | None = None
    """When slices may be merged next (monotonic seconds)."""
    _predicates: tuple[Predicate, ...] = ()

    def __post_init__(self) -> None:
        self._predicates = predicates(self.pool.spec)

    @property
    def spec(self) -> PoolTemplateSpec:
        """What the pool requires."""
        return self.pool.spec

    @property
    def needs_pairs(self) -> bool:
        """True where a change of languages can matter."""
        return self.pool.spec.requires.language_pairs is not None

    @property
    def types(self) -> frozenset[str]:
        """The types of which a change can matter."""
        return frozenset(required.type for required in self.pool.spec.requires.types)

    @property
    def brake_active(self) -> bool:
        """Whether so many are silent that nobody leaves for silence now (requirement D8)."""
        silent = len(self.suspect) + len(self.unreachable)
        return too_many_silent(silent, len(self.members) - len(self.suspect), self.pool.spec.brake.max_silent_percent)

    def update(self, node: str, view: NodeView | None) -> bool:
        """Judge one node (None: it is gone); True when the verdict is another one than before."""
        verdict = first_failure(view, self._predicates) if view else _GONE
        state, gate = verdict.state, verdict.criterion
        late = state is not None and view is not None and view.liveness is Liveness.SUSPECT
        silent = member_state(view) if view and gate is Criterion.OFFLINE and not view.expired else None
        before = self.members.get(node)
        stood, stands = (before, node in self.suspect, self.unreachable.get(node)), (state, late, silent)
        if stood == stands and self.criteria.get(node) == gate:
            return False
        self.status_dirty = self.status_dirty or stood != stands
        self._remove(node, before)
        self.dirty_nodes.add(node)
        if state is not None:
            self.members[node] = state
            self.counts[state] += 1
            if late:
                self.suspect.add(node)
        elif gate is not None:
            self.criteria[node] = gate
            self.excluded[gate] += 1
        if silent is not None:
            self.unreachable[node] = silent
            if before is not None and self.retained is not None:
                self.retained.add(node)
        return True

    def carry_over(self, former: "PoolMembership") -> None:
        """The spec changed: who stood in the pool in spite of its silence stands there still, where it qualifies."""
        self.merge_at = former.merge_at
        if former.retained is not None:
            self.retained = former.retained & self.unreachable.keys()

    def record_plan(self, held: Iterable[str] | None, merge_at: float | None) -> None:
        """Take note of what a plan decided. `held`: the silent that stay; None: nothing was decided on them."""
        self.retained = None if held is None else set(held)
        self.merge_at = merge_at

    @property
    def nodes_to_compare(self) -> set[str] | None:
        """The nodes of which the slices may say something else than what is wanted; None: any."""
        return None if self.slices_dirty else self.dirty_nodes | self.unreachable.keys() | (self.retained or set())

    @property
    def urgent(self) -> bool:
        """Whether more than counts by reason is to be planned, which cannot wait for the slow lane."""
        return self.status_dirty

    def take_dirty(self) -> tuple[set[str], bool, bool]:
        """What a plan is about to settle; what changes from now on is for the next one."""
        taken = self.dirty_nodes, self.slices_dirty, self.status_dirty
        self.dirty_nodes, self.slices_dirty, self.status_dirty = set(), False, False
        return taken

    def restore_dirty(self, taken: tuple[set[str], bool, bool], *, planned: bool) -> None:
        """It was not settled after all. `planned`: the plan decided nothing, and until the pool itself changes."""
        self.dirty_nodes |= taken[0]
        self.slices_dirty = self.slices_dirty or taken[1]
        self.status_dirty = self.status_dirty or (taken[2] and not planned)

    def _remove(self, node: str, state: MemberState | None) -> None:
        if state is not None:
            del self.members[node]
            self.counts[state] -= 1
            self.suspect.discard(node)
            return
        self.unreachable.pop(node, None)
        gate = self.criteria.pop(node, None)
        if gate is not None:
            self.excluded[gate] -= 1


PoolOrGenerator = PoolMembership | GeneratorEntry
