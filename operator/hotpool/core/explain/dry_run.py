"""Nodes that would join or leave pools if a pool or a generator were applied (requirements F2, F3).

Pure. `core.matching` evaluates both the stored and the new spec, so that an object already applied shows no difference.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from hotpool.api.generator import NotAdmitted
from hotpool.api.pool import PoolSpec
from hotpool.api.slice import MemberState
from hotpool.core.explain.explain import brake_active, explain_pool
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.matching import Criterion, MatchResult, evaluate, first_failure, predicates
from hotpool.core.model import Generator, Member, Meta, NodeView, Pool
from hotpool.core.planning.generator_plan import plan_generator

ChangeKind = Literal["new", "changed", "unchanged", "removed"]
Members = Mapping[str, Member]


@dataclass(frozen=True, slots=True)
class PoolChange:
    """Changes of one pool."""

    name: str
    kind: ChangeKind
    joins: Mapping[str, MemberState]
    leaves: Mapping[str, str]
    """Node → reason."""
    members_before: int
    members_after: int
    ready_before: bool | None
    """True if the pool has at least minMembers Ready members; None: no such pool."""
    ready_after: bool | None
    after_seconds: int = 0
    """Delay of the change: a generator removes a surplus pool after its grace."""
    withheld: str = ""
    """Why the pool would have no member although nodes meet its requirements, or empty."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """If the pool would have no member: deciding criterion → number of nodes, the most frequent first."""

    @property
    def differs(self) -> bool:
        """True if the change is visible."""
        changed = bool(self.joins or self.leaves) or self.ready_before != self.ready_after
        return changed or self.kind in {"new", "removed"}


@dataclass(frozen=True, slots=True)
class GeneratorChange:
    """Changes of the pools of one generator."""

    name: str
    kind: ChangeKind
    pools: tuple[PoolChange, ...]
    """Pools with a visible change."""
    not_admitted: tuple[NotAdmitted, ...] = ()
    not_admitted_count: int = 0
    note: str = ""
    """Reason why the generator makes no pools, or empty."""

    @property
    def differs(self) -> bool:
        """True if the change is visible."""
        return bool(self.pools) or self.kind == "new"


def compare(before: Pool | None, after: Pool | None, views: Mapping[str, NodeView], members: Members) -> PoolChange:
    """Compare one pool before and after. `members`: node → membership in its slices now."""
    old, new = _membership(before, views, members), _membership(after, views, members)
    kind: ChangeKind = "new" if before is None else "removed" if after is None else "changed"
    if before and after and (before.spec, before.paused) == (after.spec, after.paused):
        kind = "unchanged"
    withheld, reasons = _absence(after, views) if after and not new else ("", {})
    return PoolChange(
        name=next(pool.meta.name for pool in (after, before) if pool),
        kind=kind,
        joins={node: state for node, state in new.items() if node not in old},
        leaves={node: _leave_reason(after, views.get(node)) for node in old if node not in new},
        members_before=len(old),
        members_after=len(new),
        ready_before=_ready(before, old.values()),
        ready_after=_ready(after, new.values()),
        withheld=withheld,
        reasons=reasons,
    )


def _absence(pool: Pool, views: Mapping[str, NodeView]) -> tuple[str, Mapping[str, int]]:
    """Return why nodes that meet the requirements of a pool do not join, and the reasons of the others by count."""
    summary = explain_pool(views, pool, {})
    cause = "mode DryRun" if pool.spec.mode == "DryRun" else "the pause of the pool"
    count = f"{summary.pending} node{'' if summary.pending == 1 else 's'}"
    withheld = f"{cause} keeps out {count} that would join" if summary.pending else ""
    return withheld, dict(summary.reasons.most_common())


def would_join(pool: Pool, views: Mapping[str, NodeView]) -> dict[str, MemberState]:
    """Return the nodes that meet all requirements of a pool, whatever its mode, with the state of each as a member."""
    compiled = predicates(pool.spec)
    states = ((node, first_failure(view, compiled).state) for node, view in sorted(views.items()))
    return {node: state for node, state in states if state}


def _membership(pool: Pool | None, views: Mapping[str, NodeView], members: Members) -> dict[str, MemberState]:
    """Return the members that the operator would list. Members retained by the brake, known only to it, stay."""
    if pool is None:
        return {}
    if pool.problem or pool.paused:
        return {node: member.state for node, member in members.items()}
    if pool.spec.mode == "DryRun":
        return {}
    compiled = predicates(pool.spec)
    states = (
        (node, _state(pool, first_failure(view, compiled), members.get(node))) for node, view in sorted(views.items())
    )
    return {node: state for node, state in states if state}


def _state(pool: Pool, verdict: MatchResult, member: Member | None) -> MemberState | None:
    retained = member is not None and verdict.criterion is Criterion.OFFLINE and brake_active(pool)
    return member.state if retained and member else verdict.state


def _ready(pool: Pool | None, states: Iterable[MemberState]) -> bool | None:
    if pool is None:
        return None
    return pool.spec.mode != "DryRun" and sum(state == "Ready" for state in states) >= pool.spec.min_members


def _leave_reason(pool: Pool | None, view: NodeView | None) -> str:
    """Return the reason why a node would leave a pool."""
    if pool is None:
        return "the pool is removed"
    if pool.spec.mode == "DryRun":
        return "mode DryRun"
    failed = (finding for finding in evaluate(view, pool.spec) if not finding.met) if view else iter(())
    first = next(failed, None)
    return f"{first.criterion}: {first.required}" if first else "the node is gone"


@dataclass(frozen=True, slots=True)
class StoredFleet:
    """Stored state of a fleet."""

    views: Mapping[str, NodeView]
    pools: Mapping[str, Pool]
    generators: Mapping[str, Generator]
    members: Mapping[str, Members]
    """Pool → its members in slices."""


def compare_pool(pool: Pool, stored: StoredFleet) -> PoolChange:
    """Return the changes of a pool, if it were applied."""
    return _compare_stored(pool.meta.name, pool, stored)


def compare_generator(generator: Generator, stored: StoredFleet, *, timestamp: str) -> GeneratorChange:
    """Return the changes of a generator's pools at the end of its grace. `timestamp`: RFC 3339.

    Assumes that the nodes do not change meanwhile.
    """
    simulation, grace = _Simulation(generator, stored, timestamp), generator.spec.grace_seconds
    immediate, final = simulation.run(0.0), simulation.run(float(grace))
    changes = [_compare_stored(pool, final.get(pool), stored) for pool in {**simulation.before, **final}]
    delayed = {pool for pool in simulation.before if pool in immediate}
    status = simulation.status
    return GeneratorChange(
        name=generator.meta.name,
        kind=_kind(generator, stored.generators.get(generator.meta.name)),
        pools=tuple(
            replace(change, after_seconds=grace) if change.kind == "removed" and change.name in delayed else change
            for change in sorted(changes, key=lambda change: change.name)
            if change.differs
        ),
        not_admitted=status.not_admitted,
        not_admitted_count=status.not_admitted_count or 0,
        note=""
        if status.ready == "True"
        else " ".join(item.message for item in status.conditions if item.type == "Ready"),
    )


def _compare_stored(name: str, after: Pool | None, stored: StoredFleet) -> PoolChange:
    return compare(stored.pools.get(name), after, stored.views, stored.members.get(name, {}))


def _kind(generator: Generator, stored: Generator | None) -> ChangeKind:
    if stored is None:
        return "new"
    same = (stored.spec, stored.paused) == (generator.spec, generator.paused)
    return "unchanged" if same else "changed"


class _Simulation:
    """Simulation of the operator's successive plans for one generator, with unchanged nodes."""

    def __init__(self, generator: Generator, stored: StoredFleet, timestamp: str) -> None:
        self._generator, self._stored, self._timestamp = generator, stored, timestamp
        self._entry = GeneratorEntry(generator)
        for node, view in stored.views.items():
            self._entry.update(node, view)
        self._node_counts = self._entry.node_counts
        self.before = {name: pool for name, pool in stored.pools.items() if pool.owner == generator.meta.uid}
        """Stored pools of the generator."""
        self._pools = self.before
        self._counted_specs: dict[str, PoolSpec] = {}
        """Pool name → spec for which its members were counted."""
        self.status = generator.status
        """Status from the last plan."""

    def run(self, now: float) -> Mapping[str, Pool]:
        """Plan until nothing is left to do at `now` (seconds from the start). Return the generator's pools."""
        while True:
            self._pools = {name: self._with_member_count(pool) for name, pool in self._pools.items()}
            plan = plan_generator(self._entry, self._pools, self._stored.pools, now, self._timestamp)
            self.status = plan.status
            removed = {pool.meta.name for pool in plan.remove}
            created = {name: self._pool(Meta(name, "", 0), spec) for name, spec in plan.create.items()}
            corrected = {
                name: replace(self._pools[name], spec=spec, problem=None) for name, spec in plan.correct.items()
            }
            self._pools = {n: pool for n, pool in {**self._pools, **corrected, **created}.items() if n not in removed}
            unfinished = plan.recheck_at is not None and plan.recheck_at <= now
            if not (removed or created or corrected or unfinished):
                return self._pools

    def _pool(self, meta: Meta, spec: PoolSpec) -> Pool:
        return Pool(meta, spec, owner=self._generator.meta.uid)

    def _with_member_count(self, pool: Pool) -> Pool:
        """Set the member count that the spec results in, if no node offers the pool's key: it is removed when empty."""
        key = self._entry.key(pool)
        if key is None or key in self._node_counts or self._counted_specs.get(pool.meta.name) is pool.spec:
            return pool
        self._counted_specs[pool.meta.name] = pool.spec
        members = len(_membership(pool, self._stored.views, self._stored.members.get(pool.meta.name, {})))
        return replace(pool, status=pool.status.model_copy(update={"members": members}))
