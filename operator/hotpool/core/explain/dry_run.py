"""Who would join and leave pools if a pool or a generator were applied (requirements F2, F3).

Pure; both sides are asked of the same judge, so that an object that is applied already makes no difference.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hotpool.api.generator import NotAdmitted
from hotpool.api.pool import PoolSpec
from hotpool.api.slice import MemberState
from hotpool.core.explain.explain import Membership, brake_active
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.matching import Criterion, MatchResult, evaluate, first_failure, predicates
from hotpool.core.model import Generator, Meta, NodeView, Pool
from hotpool.core.planning.generator_plan import plan_generator

ChangeKind = Literal["new", "changed", "unchanged", "removed"]
Members = Mapping[str, Membership]


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What would happen to one pool."""

    name: str
    kind: ChangeKind
    joins: Mapping[str, MemberState]
    leaves: Mapping[str, str]
    """Node → why."""
    members_before: int
    members_after: int
    ready_before: bool | None
    """Whether there are minMembers Ready members; None where there is no pool."""
    ready_after: bool | None
    after_seconds: int = 0
    """When it would happen: what a generator gives up is removed when it was empty for so long."""

    @property
    def differs(self) -> bool:
        """Whether anything would be seen of it."""
        moved = bool(self.joins or self.leaves) or self.ready_before != self.ready_after
        return moved or self.kind in {"new", "removed"}


@dataclass(frozen=True, slots=True)
class GeneratorChange:
    """What would happen to the pools of one generator."""

    name: str
    kind: ChangeKind
    pools: tuple[PoolChange, ...]
    """Those that would differ."""
    not_admitted: tuple[NotAdmitted, ...] = ()
    not_admitted_count: int = 0
    note: str = ""
    """Why nothing is made, where that is so."""

    @property
    def differs(self) -> bool:
        """Whether anything would be seen of it."""
        return bool(self.pools) or self.kind == "new"


def compare(before: Pool | None, after: Pool | None, views: Mapping[str, NodeView], members: Members) -> PoolChange:
    """One pool as it is and as it would be. `members`: what its slices say now."""
    was, will = _membership(before, views, members), _membership(after, views, members)
    kind: ChangeKind = "new" if before is None else "removed" if after is None else "changed"
    if before and after and (before.spec, before.paused) == (after.spec, after.paused):
        kind = "unchanged"
    return PoolChange(
        name=next(pool.meta.name for pool in (after, before) if pool),
        kind=kind,
        joins={node: state for node, state in will.items() if node not in was},
        leaves={node: _leave_reason(after, views.get(node)) for node in was if node not in will},
        members_before=len(was),
        members_after=len(will),
        ready_before=_ready(before, was.values()),
        ready_after=_ready(after, will.values()),
    )


def _membership(pool: Pool | None, views: Mapping[str, NodeView], members: Members) -> dict[str, MemberState]:
    """Who the operator would have in a pool; what only its clock knows (the brake) stays as it is."""
    if pool is None:
        return {}
    if pool.problem or pool.paused:
        return {node: member.state for node, member in members.items()}
    if pool.spec.mode == "DryRun":
        return {}
    asked = predicates(pool.spec)
    found = (
        (node, _state(pool, first_failure(view, asked), members.get(node))) for node, view in sorted(views.items())
    )
    return {node: state for node, state in found if state}


def _state(pool: Pool, verdict: MatchResult, member: Membership | None) -> MemberState | None:
    held = member is not None and verdict.criterion is Criterion.OFFLINE and brake_active(pool)
    return member.state if held and member else verdict.state


def _ready(pool: Pool | None, states: Iterable[MemberState]) -> bool | None:
    if pool is None:
        return None
    return pool.spec.mode != "DryRun" and sum(state == "Ready" for state in states) >= pool.spec.min_members


def _leave_reason(pool: Pool | None, view: NodeView | None) -> str:
    """Why a node would not be in a pool any more."""
    if pool is None:
        return "the pool is removed"
    if pool.spec.mode == "DryRun":
        return "mode DryRun"
    failed = (finding for finding in evaluate(view, pool.spec) if not finding.met) if view else iter(())
    first = next(failed, None)
    return f"{first.criterion}: {first.required}" if first else "the node is gone"


@dataclass(frozen=True, slots=True)
class StoredFleet:
    """The fleet as it is stored."""

    views: Mapping[str, NodeView]
    pools: Mapping[str, Pool]
    generators: Mapping[str, Generator]
    members: Mapping[str, Members]
    """What the slices say, by pool."""


def compare_pool(pool: Pool, stored: StoredFleet) -> PoolChange:
    """A pool as it would be."""
    return _compare_stored(pool.meta.name, pool, stored)


def compare_generator(generator: Generator, stored: StoredFleet, *, now: str) -> GeneratorChange:
    """A generator as it would be: its pools when its grace is over, if the nodes stay as they are."""
    course = _Simulation(generator, stored, now)
    at_once, in_the_end = course.run(0.0), course.run(float(generator.spec.grace_seconds))
    changes = [_compare_stored(pool, in_the_end.get(pool), stored) for pool in {**course.before, **in_the_end}]
    late = {pool for pool in course.before if pool in at_once}
    grace = generator.spec.grace_seconds
    status = course.status
    return GeneratorChange(
        name=generator.meta.name,
        kind=_kind(generator, stored.generators.get(generator.meta.name)),
        pools=tuple(
            replace(change, after_seconds=grace) if change.kind == "removed" and change.name in late else change
            for change in sorted(changes, key=lambda change: change.name)
            if change.differs
        ),
        not_admitted=status.not_admitted,
        not_admitted_count=status.not_admitted_count or 0,
        note="" if status.ready == "True" else " ".join(item.message for item in status.conditions[:1]),
    )


def _compare_stored(name: str, after: Pool | None, stored: StoredFleet) -> PoolChange:
    return compare(stored.pools.get(name), after, stored.views, stored.members.get(name, {}))


def _kind(generator: Generator, stored: Generator | None) -> ChangeKind:
    if stored is None:
        return "new"
    same = (stored.spec, stored.paused) == (generator.spec, generator.paused)
    return "unchanged" if same else "changed"


class _Simulation:
    """What the operator would do with a generator's pools, plan after plan, while the nodes stay as they are."""

    def __init__(self, generator: Generator, stored: StoredFleet, now: str) -> None:
        self._generator, self._stored, self._now = generator, stored, now
        self._entry = GeneratorEntry(generator)
        for node, view in stored.views.items():
            self._entry.update(node, view)
        self._key_index = self._entry.node_counts
        self.before = {name: pool for name, pool in stored.pools.items() if pool.owner == generator.meta.uid}
        """The generator's pools as they are."""
        self._generated_pools = self.before
        self._ready_members: dict[str, PoolSpec] = {}
        self.status = generator.status
        """As the last plan has it."""

    def run(self, moment: float) -> Mapping[str, Pool]:
        """The generator's pools when there is nothing left to do at that moment (seconds from now)."""
        while True:
            self._generated_pools = {
                name: self._with_member_count(pool) for name, pool in self._generated_pools.items()
            }
            plan = plan_generator(self._entry, self._generated_pools, self._stored.pools, moment, self._now)
            self.status = plan.status
            gone = {pool.meta.name for pool in plan.remove}
            new = {name: self._pool(Meta(name, "", 0), spec) for name, spec in plan.create.items()}
            right = {
                name: replace(self._generated_pools[name], spec=spec, problem=None)
                for name, spec in plan.correct.items()
            }
            self._generated_pools = {
                name: pool for name, pool in {**self._generated_pools, **right, **new}.items() if name not in gone
            }
            unfinished = plan.recheck_at is not None and plan.recheck_at <= moment
            if not (gone or new or right or unfinished):
                return self._generated_pools

    def _pool(self, meta: Meta, spec: PoolSpec) -> Pool:
        return Pool(meta, spec, owner=self._generator.meta.uid)

    def _with_member_count(self, pool: Pool) -> Pool:
        """A pool whose key nobody offers goes when it is empty: with the members that its spec gives it."""
        key = self._entry.key(pool)
        if key is None or key in self._key_index or self._ready_members.get(pool.meta.name) is pool.spec:
            return pool
        self._ready_members[pool.meta.name] = pool.spec
        members = len(_membership(pool, self._stored.views, self._stored.members.get(pool.meta.name, {})))
        return replace(pool, status=pool.status.model_copy(update={"members": members}))
