"""A pool, and the match of every node with it.

Holds the last result for each node, so that a change of one node costs one match and no scan. Pure.
`core.generators.key_index` does the same for generators.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from hotpool.api.pool import PoolTemplateSpec
from hotpool.api.slice import MemberState
from hotpool.core.brake import too_many_silent
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.matching import NO_RESULT, Criterion, MatchResult, Predicate, first_failure, predicates
from hotpool.core.model import Liveness, NodeView, Pool
from hotpool.core.service_backends import backends
from hotpool.core.service_filter import ServiceFilter
from hotpool.core.service_model import Backend

_VERSIONS = count(1)


@dataclass(slots=True)
class DirtySet:
    """Parts of a pool whose stored state in Kubernetes may differ from the desired one."""

    nodes: set[str] = field(default_factory=set)
    """Nodes whose match result changed since the last successful write of the slices."""
    slices: bool = True
    """True if any slice may differ from the last write: after an edit by others, or a restart."""
    status: bool = True
    """True if the next plan may change more of the status than the counts in `status.excluded`."""

    def snapshot(self) -> "DirtySet":
        """Return the parts and clear them, before a write. Later changes set them again for the next write."""
        taken = DirtySet(self.nodes, self.slices, self.status)
        self.nodes, self.slices, self.status = set(), False, False
        return taken

    def restore(self, taken: "DirtySet", *, status_current: bool = False) -> None:
        """Set the parts again after a write that failed, was postponed, or decided nothing (a paused pool).

        `status_current`: of the status, at most the counts in `status.excluded` are unwritten, so that the next write
        may wait.
        """
        self.nodes |= taken.nodes
        self.slices = self.slices or taken.slices
        self.status = self.status or (taken.status and not status_current)


@dataclass(slots=True)
class PoolMembership:
    """A pool, the match result of every node, and the counts for the pool's status."""

    pool: Pool
    members: dict[str, MemberState] = field(default_factory=dict)
    """Node → state in which it is listed."""
    criteria: dict[str, Criterion] = field(default_factory=dict)
    """Node that is no member → first criterion that it does not meet."""
    excluded: Counter[Criterion] = field(default_factory=Counter)
    """Number of nodes by the first criterion that they do not meet."""
    unreachable: dict[str, MemberState] = field(default_factory=dict)
    """Node that only its silence keeps out (4 H to 600 s) → its member state if the brake retains it."""
    suspect: set[str] = field(default_factory=set)
    """Members that have been silent for 3 H, but not yet for 4 H."""
    retained: set[str] | None = None
    """Unreachable nodes that the brake may retain because they were members before; None before the first plan."""
    counts: Counter[MemberState] = field(default_factory=Counter)
    """Number of members by state."""
    dirty: DirtySet = field(default_factory=DirtySet)
    version: int = field(default_factory=lambda: next(_VERSIONS))
    """Number that is another one after each change of the members, and in each new instance."""
    backends: dict[str, tuple[Backend, ...]] = field(default_factory=dict)
    """Member, or node that the brake may retain → its addresses behind the pool's Service."""
    backends_version: int = 0
    """Number that is another one after each change of `backends`."""
    service_name_taken: str | None = None
    """Reason why the pool cannot have the Service of its name; empty: it can; None: not known yet."""
    merge_at: float | None = None
    """Earliest time of the next merge of slices (monotonic seconds)."""
    matched: bool = True
    """False until every node was matched: before that, the pool must not be planned."""
    services: ServiceFilter = field(init=False)
    exceptions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Member of which not every ready service of the required types meets the pool → ids of those that do."""
    _predicates: tuple[Predicate, ...] = ()

    def __post_init__(self) -> None:
        self._predicates = predicates(self.pool.spec)
        self.services = ServiceFilter.of(self.pool.spec)

    @property
    def spec(self) -> PoolTemplateSpec:
        """Requirements of the pool."""
        return self.pool.spec

    @property
    def needs_pairs(self) -> bool:
        """True if a change of a node's language pairs can affect the pool."""
        return self.pool.spec.requires.language_pairs is not None

    @property
    def types(self) -> frozenset[str]:
        """Types whose readiness can affect the pool."""
        return frozenset(required.type for required in self.pool.spec.requires.types)

    @property
    def brake_active(self) -> bool:
        """True if so many nodes are silent that none leaves the pool because of silence (requirement D8)."""
        silent = len(self.suspect) + len(self.unreachable)
        return too_many_silent(silent, len(self.members) - len(self.suspect), self.pool.spec.brake.max_silent_percent)

    def update(self, node: str, view: NodeView | None, silence: MatchResult | None = None) -> bool:
        """Match one node (None: deleted). Return True if the result, or what clients get of the node, differs.

        `silence`: the result of `match_silence`, if no other requirement can have another result than before. A node
        that was not matched before is matched with all of them.
        """
        former, reason = self.members.get(node), self.criteria.get(node)
        if silence and reason is not None and reason is not Criterion.OFFLINE:
            return False  # another requirement keeps it out
        known = former is not None or reason is not None
        result = silence if silence and known else self._match(view)
        state, criterion, unreachable = result.state, result.criterion, result.unreachable
        suspect = state is not None and view is not None and view.liveness is Liveness.SUSPECT
        moved = self._update_exception(node, view if state is not None else None)
        moved |= self._update_backends(node, view if state is not None or unreachable is not None else None)
        before, after = (former, node in self.suspect, self.unreachable.get(node)), (state, suspect, unreachable)
        if before == after and reason == criterion:
            return moved
        if before != after:
            self.dirty.status, self.version = True, next(_VERSIONS)
        self._remove(node, former)
        self.dirty.nodes.add(node)
        if state is not None:
            self.members[node] = state
            self.counts[state] += 1
            if suspect:
                self.suspect.add(node)
        elif criterion is not None:
            self.criteria[node] = criterion
            self.excluded[criterion] += 1
        if unreachable is not None:
            self.unreachable[node] = unreachable
            if former is not None and self.retained is not None:
                self.retained.add(node)
        return True

    def _match(self, view: NodeView | None) -> MatchResult:
        return first_failure(view, self._predicates) if view else NO_RESULT

    def _update_exception(self, node: str, member: NodeView | None) -> bool:
        """Note which services of a member meet the pool; only Redis needs it. Return True if they differ."""
        if not self.services.active:
            return False
        report = member.node.report if member else None
        services = self.services.exceptions(report) if report else None
        if services == self.exceptions.get(node):
            return False
        self.version = next(_VERSIONS)
        if services is None:
            del self.exceptions[node]
        else:
            self.exceptions[node] = services
        return True

    def _update_backends(self, node: str, view: NodeView | None) -> bool:
        """Record the addresses of a node behind the Service. Return True if they differ from the previous ones."""
        if self.spec.service is None:
            return False
        found = backends(view, self.spec, self.services) if view else ()
        if found == self.backends.get(node, ()):
            return False
        self.backends_version = next(_VERSIONS)
        if found:
            self.backends[node] = found
        else:
            del self.backends[node]
        return True

    def carry_over(self, former: "PoolMembership") -> None:
        """Take over the state from before a change of the spec."""
        self.merge_at, self.retained = former.merge_at, former.retained

    def record_plan(self, retained: Iterable[str] | None) -> None:
        """Record the result of a plan. `retained`: silent nodes that stay; None: the plan did not decide on them."""
        now = None if retained is None else set(retained)
        if now != self.retained:
            self.retained, self.version = now, next(_VERSIONS)

    def hold_ended(self) -> bool:
        """Note that the brake may let silent nodes go now. Return True if there are any."""
        if self.unreachable:
            self.dirty.status, self.version = True, next(_VERSIONS)
        return bool(self.unreachable)

    @property
    def nodes_to_compare(self) -> set[str] | None:
        """Nodes whose entry in the slices may differ from the desired one; None: any node."""
        return None if self.dirty.slices else self.dirty.nodes | self.unreachable.keys() | (self.retained or set())

    @property
    def urgent(self) -> bool:
        """True if the next plan must not wait: more than the counts in `status.excluded` may change."""
        return self.dirty.status

    def _remove(self, node: str, state: MemberState | None) -> None:
        if state is not None:
            del self.members[node]
            self.counts[state] -= 1
            self.suspect.discard(node)
            return
        self.unreachable.pop(node, None)
        criterion = self.criteria.pop(node, None)
        if criterion is not None:
            self.excluded[criterion] -= 1


PoolOrGenerator = PoolMembership | GeneratorEntry
