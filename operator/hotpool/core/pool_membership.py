"""What nodes are judged for: a pool's members. What they offer to a generator is in `core.generators.key_index`.

It keeps one entry for each node, so that a change costs one
judgement and not a scan.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hotpool.api.pool import PoolTemplateSpec
from hotpool.api.slice import MemberState
from hotpool.core.brake import brakes
from hotpool.core.generators.key_index import GeneratorSubject
from hotpool.core.matching import Check, Gate, Verdict, checks, decide, member_state
from hotpool.core.model import Liveness, NodeView, Pool

_GONE = Verdict(None)


@dataclass(slots=True)
class PoolSubject:
    """A pool, the verdict on every node, and the counts that its status shows."""

    pool: Pool
    members: dict[str, MemberState] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    excluded: Counter[Gate] = field(default_factory=Counter)
    silent: dict[str, MemberState] = field(default_factory=dict)
    """Nodes that nothing but their silence keeps out, and how they are listed while the brake holds them."""
    late: set[str] = field(default_factory=set)
    """Members that are silent for 3 H."""
    standing: set[str] | None = None
    """Silent nodes that the last plan kept, or that were members when they fell silent; None before the first plan."""
    counts: Counter[MemberState] = field(default_factory=Counter)
    """Members by state."""
    changed: set[str] = field(default_factory=set)
    """Nodes whose verdict changed since the slices were last known to say what is wanted."""
    foreign: bool = True
    """True while the slices may hold what we did not write."""
    moved: bool = True
    """True while more than counts by reason may differ from what the last plan made of it."""
    merge_at: float | None = None
    """When slices may be merged next (monotonic seconds)."""
    _checks: tuple[Check, ...] = ()

    def __post_init__(self) -> None:
        self._checks = checks(self.pool.spec)

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
    def brakes(self) -> bool:
        """Whether so many are silent that nobody leaves for silence now (behaviour D8)."""
        silent = len(self.late) + len(self.silent)
        return brakes(silent, len(self.members) - len(self.late), self.pool.spec.brake.max_silent_percent)

    def update(self, node: str, view: NodeView | None) -> bool:
        """Judge one node (None: it is gone); True when the verdict is another one than before."""
        verdict = decide(view, self._checks) if view else _GONE
        state, gate = verdict.state, verdict.gate
        late = state is not None and view is not None and view.liveness is Liveness.SUSPECT
        silent = member_state(view) if view and gate is Gate.OFFLINE and not view.expired else None
        before = self.members.get(node)
        stood, stands = (before, node in self.late, self.silent.get(node)), (state, late, silent)
        if stood == stands and self.gates.get(node) == gate:
            return False
        self.moved = self.moved or stood != stands
        self._drop(node, before)
        self.changed.add(node)
        if state is not None:
            self.members[node] = state
            self.counts[state] += 1
            if late:
                self.late.add(node)
        elif gate is not None:
            self.gates[node] = gate
            self.excluded[gate] += 1
        if silent is not None:
            self.silent[node] = silent
            if before is not None and self.standing is not None:
                self.standing.add(node)
        return True

    def carry_over(self, former: "PoolSubject") -> None:
        """The spec changed: who stood in the pool in spite of its silence stands there still, where it qualifies."""
        self.merge_at = former.merge_at
        if former.standing is not None:
            self.standing = former.standing & self.silent.keys()

    def planned(self, held: Iterable[str] | None, merge_at: float | None) -> None:
        """Take note of what a plan decided. `held`: the silent that stay; None: nothing was decided on them."""
        self.standing = None if held is None else set(held)
        self.merge_at = merge_at

    @property
    def unsettled(self) -> set[str] | None:
        """The nodes of which the slices may say something else than what is wanted; None: any."""
        return None if self.foreign else self.changed | self.silent.keys() | (self.standing or set())

    @property
    def urgent(self) -> bool:
        """Whether more than counts by reason is to be planned, which cannot wait for the slow lane."""
        return self.moved

    def take_unsettled(self) -> tuple[set[str], bool, bool]:
        """What a plan is about to settle; what changes from now on is for the next one."""
        taken = self.changed, self.foreign, self.moved
        self.changed, self.foreign, self.moved = set(), False, False
        return taken

    def give_back(self, taken: tuple[set[str], bool, bool], *, planned: bool) -> None:
        """It was not settled after all. `planned`: the plan decided nothing, and until the pool itself changes."""
        self.changed |= taken[0]
        self.foreign = self.foreign or taken[1]
        self.moved = self.moved or (taken[2] and not planned)

    def _drop(self, node: str, state: MemberState | None) -> None:
        if state is not None:
            del self.members[node]
            self.counts[state] -= 1
            self.late.discard(node)
            return
        self.silent.pop(node, None)
        gate = self.gates.pop(node, None)
        if gate is not None:
            self.excluded[gate] -= 1


Subject = PoolSubject | GeneratorSubject
