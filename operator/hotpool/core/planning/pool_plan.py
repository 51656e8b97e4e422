"""The desired result for one pool or one node, whole: slices, status, what Redis shall say, conditions.

Compared by `core.planning.diff` with what is applied. Pure.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.api.meta import MAX_CONDITIONS, Condition
from hotpool.api.pool import ExcludedCount, PoolStatus
from hotpool.api.slice import MemberState
from hotpool.core.conditions import ConditionUpdate, set_conditions
from hotpool.core.matching import Criterion, has_no_requirements
from hotpool.core.model import Liveness, Member, NodeView, Pool, Slice, TypeState, stem_and_index
from hotpool.core.planning.slice_packing import Packing, merge, pack, slice_to_merge
from hotpool.core.pool_membership import PoolMembership

MERGE_SECONDS: Final = 60.0
"""Slices of one pool are merged at most once in this time (requirement D7)."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What shall be true of one pool."""

    slices: Mapping[str, tuple[Member, ...]]
    """Slice name → members, in order."""
    status: PoolStatus
    members: Mapping[str, MemberState]
    """What Redis shall say."""
    retained: frozenset[str] | None = None
    """Members that only the brake keeps; None: nothing about the pool was decided."""
    merge_at: float | None = None
    """When slices may be merged next (monotonic seconds)."""
    recheck_at: float | None = None
    """When to plan again though nothing happened (monotonic seconds)."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What shall be true of one node. `types` is None where Redis shall not know the node."""

    conditions: tuple[Condition, ...]
    types: Mapping[str, TypeState] | None


def plan_pool(
    subject: PoolMembership, slices: Mapping[str, Slice], known_types: Mapping[str, int], moment: float, now: str
) -> PoolPlan:
    """The whole desired result. `slices`: those observed, by name; `moment`: monotonic seconds; `now`: RFC 3339."""
    pool = subject.pool
    if pool.paused or pool.problem:
        return _unchanged(pool, slices, now)
    held = _retained(subject, slices)
    wanted = {**subject.members, **held} if held else subject.members
    published = {} if pool.spec.mode == "DryRun" else wanted
    current = _packing(pool, slices)
    packed = pack(current, published, pool.spec.slice_size, now, subject.nodes_to_compare)
    packing, merge_at, recheck_at = _merge_if_due(subject, packed.slices, moment)
    counts = subject.counts + Counter(held.values())
    status = PoolStatus(
        observed_generation=pool.meta.generation,
        members=len(wanted),
        ready_members=counts["Ready"],
        suspect_members=counts["Suspect"],
        draining_members=counts["Draining"],
        slices=len(packing),
        excluded=_excluded(subject, len(held)),
        last_change=now if packed.membership_changed or pool.status.last_change is None else pool.status.last_change,
    )
    claims = [
        _ready(pool, counts["Ready"]),
        *_mass_silence_conditions(subject, held),
        *_unknown_types(pool, known_types),
    ]
    return PoolPlan(
        slices={f"{pool.meta.name}-{index}": members for index, members in packing.items()},
        status=_with_conditions(status, pool, claims, now),
        members=published,
        retained=frozenset(held if published else ()),
        merge_at=merge_at,
        recheck_at=recheck_at,
    )


def _retained(subject: PoolMembership, slices: Mapping[str, Slice]) -> dict[str, MemberState]:
    """The silent that stay in the pool because too many are silent at once (requirement D8)."""
    if not subject.unreachable or not subject.brake_active:
        return {}
    standing = subject.retained
    if standing is None:
        ours = (item for item in slices.values() if item.owner == subject.pool.meta.uid)
        standing = {member.node for item in ours for member in item.members}
    return {node: state for node, state in subject.unreachable.items() if node in standing}


def _merge_if_due(subject: PoolMembership, packing: Packing, moment: float) -> tuple[Packing, float, float | None]:
    """The slices, with one emptied into the others where the pace allows it; when that is allowed next, and is due."""
    size = subject.pool.spec.slice_size
    allowed = moment + MERGE_SECONDS if subject.merge_at is None else subject.merge_at
    index = slice_to_merge(packing, size)
    if index is not None and moment >= allowed:
        packing, allowed = merge(packing, index, size), moment + MERGE_SECONDS
        index = slice_to_merge(packing, size)
    return packing, allowed, None if index is None else allowed


def _excluded(subject: PoolMembership, held: int) -> tuple[ExcludedCount, ...]:
    counts = {**subject.excluded, Criterion.OFFLINE: subject.excluded[Criterion.OFFLINE] - held}
    return tuple(ExcludedCount(reason=gate, count=number) for gate, number in sorted(counts.items()) if number)


def _mass_silence_conditions(subject: PoolMembership, held: Mapping[str, MemberState]) -> list[ConditionUpdate]:
    if not held:
        return []
    silent = len(subject.unreachable) + len(subject.suspect)
    text = (
        f"{silent} of {silent + len(subject.members) - len(subject.suspect)} nodes are silent, more than "
        f"brake.maxSilentPercent {subject.pool.spec.brake.max_silent_percent} lets go at once: "
        f"{len(held)} stay as Suspect until they beat again or 600 s are over"
    )
    return [ConditionUpdate("MassSilence", "True", "BrakeHolds", text)]


def _unchanged(pool: Pool, slices: Mapping[str, Slice], now: str) -> PoolPlan:
    """A pool about which nothing is changed: paused by people, or with a spec that cannot be read.

    Its members are those of its slices (not of others that claim to be): Redis, too, goes on to say what it said, after
    a restart or a flush as well.
    """
    stays = ConditionUpdate(
        "Paused", "True", "Paused", "annotation hotpool.dev/paused: nothing about the pool is changed"
    )
    broken = ConditionUpdate("Ready", "False", "InvalidSpec", pool.problem or "")
    before = pool.status.conditions
    kept = [ConditionUpdate(c.type, c.status, c.reason, c.message) for c in before if c.type not in {"Paused", "Ready"}]
    ready = [ConditionUpdate(c.type, c.status, c.reason, c.message) for c in before if c.type == "Ready"]
    claims = [*([broken] if pool.problem else ready), *([stays] if pool.paused else []), *kept][:MAX_CONDITIONS]
    status = pool.status.model_copy(update={"observed_generation": pool.meta.generation})
    members = {member.node: member.state for found in _packing(pool, slices).values() for member in found}
    conditions = _with_conditions(status, pool, claims, now)
    return PoolPlan({name: item.members for name, item in slices.items()}, conditions, members)


def _with_conditions(status: PoolStatus, pool: Pool, claims: list[ConditionUpdate], now: str) -> PoolStatus:
    before = {c.type: (c.status, c.last_transition_time) for c in pool.status.conditions}
    conditions = set_conditions(claims, before, pool.meta.generation, now)
    ready = next((c.status for c in conditions if c.type == "Ready"), None)
    return status.model_copy(update={"conditions": conditions, "ready": ready})


def _ready(pool: Pool, ready: int) -> ConditionUpdate:
    wanted = pool.spec.min_members
    if pool.spec.mode == "DryRun":
        text = f"mode DryRun: {ready} nodes would be Ready members; no membership is written"
        return ConditionUpdate("Ready", "False", "DryRun", text)
    if has_no_requirements(pool.spec):
        return ConditionUpdate(
            "Ready", "False", "EmptyRequirements", "spec.requires is empty: require something, or say matchAll: true"
        )
    text = f"{ready} Ready members, {wanted} required"
    return (
        ConditionUpdate("Ready", "True", "EnoughMembers", text)
        if ready >= wanted
        else ConditionUpdate("Ready", "False", "TooFewMembers", text)
    )


def _unknown_types(pool: Pool, known: Mapping[str, int]) -> list[ConditionUpdate]:
    unknown = sorted(required.type for required in pool.spec.requires.types if not known.get(required.type))
    if not unknown:
        return []
    return [
        ConditionUpdate("UnknownRequirement", "True", "UnknownType", f"no node reports the types: {', '.join(unknown)}")
    ]


def _packing(pool: Pool, slices: Mapping[str, Slice]) -> Packing:
    """Slice index → members, of those slices whose names are a pool's slice names."""
    found = ((stem_and_index(name), item) for name, item in slices.items())
    return {index: item.members for (stem, index), item in found if stem == pool.meta.name and index is not None}


def plan_node(view: NodeView, now: str) -> NodePlan:
    """The conditions of a node (requirement C1), and what Redis shall say of it (E3)."""
    node, report = view.node, view.node.report
    before = {kind: (recorded.status, recorded.since) for kind, recorded in node.conditions.items()}
    claims = [_node_ready(view), _draining(view)]
    hidden = report is None or report.leaving or view.liveness is Liveness.OFFLINE
    types = None if hidden or report is None else report.types
    return NodePlan(set_conditions(claims, before, node.meta.generation, now), types)


def _node_ready(view: NodeView) -> ConditionUpdate:
    node, report = view.node, view.node.report
    if report is None and node.problem:
        return ConditionUpdate("Ready", "False", "InvalidReport", node.problem)
    if report is None:
        return ConditionUpdate("Ready", "Unknown", "AwaitingReport", "no agent has reported yet")
    if view.liveness is Liveness.OFFLINE and not view.seen:
        return ConditionUpdate(
            "Ready", "Unknown", "AwaitingHeartbeat", "no heartbeat was heard since the operator started"
        )
    if view.liveness is Liveness.OFFLINE:
        return ConditionUpdate("Ready", "Unknown", "Offline", "no heartbeat for 4 intervals: out of all pools")
    if report.leaving:
        return ConditionUpdate("Ready", "False", "Leaving", "the agent announced that it leaves")
    if view.liveness is Liveness.SUSPECT:
        return ConditionUpdate("Ready", "Unknown", "Suspect", "no heartbeat for 3 intervals: offered last")
    if node.drain:
        return ConditionUpdate("Ready", "False", "Draining", "spec.drain: offered no new work")
    if view.cordoned:
        return ConditionUpdate("Ready", "False", "Cordoned", "the Node is cordoned: offered no new work")
    return ConditionUpdate("Ready", "True", "Live", "the agent reports and beats")


def _draining(view: NodeView) -> ConditionUpdate:
    leaving = view.node.report is not None and view.node.report.leaving
    if view.node.drain:
        also = ", and the Node is cordoned" if view.cordoned else ""
        return ConditionUpdate("Draining", "True", "Requested", f"spec.drain is true{also}")
    if view.cordoned:
        return ConditionUpdate("Draining", "True", "Cordoned", "the Node is cordoned (its spec.unschedulable is true)")
    return (
        ConditionUpdate("Draining", "True", "Leaving")
        if leaving
        else ConditionUpdate("Draining", "False", "NotRequested")
    )
