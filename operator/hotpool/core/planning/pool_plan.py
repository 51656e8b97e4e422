"""Desired state of one pool (slices, status, members in Redis) or of one node (conditions, types in Redis).

`core.planning.diff` compares it with the stored state. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.api.meta import Condition
from hotpool.api.pool import ExcludedCount, PoolStatus
from hotpool.api.slice import MemberState
from hotpool.core.address_problems import ADDRESS_CONFLICT, ADDRESS_NOT_ALLOWED, describe
from hotpool.core.conditions import (
    PAUSE_IGNORED,
    UNKNOWN_REQUIREMENT,
    ConditionUpdate,
    pause_ignored,
    set_conditions,
    unknown_requirement,
    update_conditions,
)
from hotpool.core.declared_words import Declared, Undeclared, undeclared_words
from hotpool.core.kube_node_health import NODE_OUT_OF_SERVICE, NODE_SHUTDOWN, SHUTDOWN_MESSAGE, describe_shutdown
from hotpool.core.matching import Criterion, has_no_requirements
from hotpool.core.model import Liveness, Member, Node, NodeView, Pool, Slice, TypeState
from hotpool.core.planning.slice_packing import Packing, merge, pack, slice_to_merge
from hotpool.core.pool_membership import PoolMembership
from hotpool.core.slice_name import stem_and_index

MERGE_SECONDS: Final = 60.0
"""Least time between two merges of slices of one pool (requirement D7)."""
CONDITION_TYPES: Final = frozenset(
    {"Ready", "MassSilence", UNKNOWN_REQUIREMENT, "Paused", PAUSE_IGNORED, "ServiceNotAllowed", "ServiceNameTaken"}
)
"""Conditions of a pool that the operator writes."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Desired state of one pool."""

    slices: Mapping[str, tuple[Member, ...]]
    """Slice name → members, in order."""
    status: PoolStatus
    retained: frozenset[str] | None = None
    """Members that only the brake retains; None: the pool is paused or its spec invalid, so nothing was decided."""
    merge_at: float | None = None
    """Earliest time of the next merge of slices (monotonic seconds)."""
    recheck_at: float | None = None
    """Time of the next plan even if nothing changes (monotonic seconds); None: no need."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Desired state of one node. `types` is None if Redis must not list the node."""

    conditions: tuple[Condition, ...]
    types: Mapping[str, TypeState] | None


def plan_pool(
    membership: PoolMembership,
    slices: Mapping[str, Slice],
    known_types: Mapping[str, int],
    now: float,
    timestamp: str,
    *,
    declared: Declared | None = None,
    ageing: bool = False,
    service_refusal: str = "",
) -> PoolPlan:
    """Plan one pool. `slices`: observed ones by name; `now`: monotonic seconds; `timestamp`: RFC 3339.

    `declared`: of all services; None: required attributes are not looked for. `service_refusal`: reason why no pool
    may have a Service; empty: pools may. `ageing`: see `plan_members`.
    """
    pool = membership.pool
    if pool.paused or pool.problem:
        return _unchanged(pool, slices, timestamp)
    listed = plan_members(membership, slices, ageing=ageing)
    retained, members, published = listed.braked, listed.all, listed.published
    current = _packing(pool, slices)
    packed = pack(current, published, pool.spec.slice_size, timestamp, membership.nodes_to_compare)
    packing, merge_at, recheck_at = _merge_if_due(membership, packed.slices, now)
    counts = membership.counts + Counter(retained.values())
    changed = packed.membership_changed or pool.status.last_change is None
    status = PoolStatus(
        observed_generation=pool.meta.generation,
        members=len(members),
        ready_members=counts["Ready"],
        suspect_members=counts["Suspect"],
        draining_members=counts["Draining"],
        slices=len(packing),
        excluded=_excluded(membership, len(retained)),
        last_change=timestamp if changed else pool.status.last_change,
    )
    updates = [
        _ready(pool, counts["Ready"]),
        *_mass_silence_conditions(membership, retained),
        *pause_ignored(pool.pause_problem),
        *unknown_requirement(_undeclared(pool, known_types, declared)),
        *_service_conditions(membership, service_refusal),
    ]
    return PoolPlan(
        slices={f"{pool.meta.name}-{index}": members for index, members in packing.items()},
        status=_with_conditions(status, pool, updates, timestamp),
        retained=listed.retained,
        merge_at=merge_at,
        recheck_at=recheck_at,
    )


@dataclass(frozen=True, slots=True)
class PoolMembers:
    """Members of one pool, as every target has them."""

    all: Mapping[str, MemberState]
    """Node → state of the members, also of those of a pool in mode DryRun."""
    published: Mapping[str, MemberState]
    """Members that are written."""
    braked: Mapping[str, MemberState]
    """Members that only the brake retains."""
    retained: frozenset[str] | None
    """The published ones of these; None: the pool is paused or its spec invalid, so nothing was decided."""


def plan_members(membership: PoolMembership, slices: Mapping[str, Slice], *, ageing: bool = False) -> PoolMembers:
    """Return the members of a pool. `slices`: observed ones by name.

    `ageing`: True while more nodes may be silent than the pool knows of, so that the brake holds.
    """
    pool = membership.pool
    if pool.paused or pool.problem:
        # Redis gets the members of the regular slices, so that a restart or a flush of Redis does not change them.
        listed = {member.node: member.state for items in _packing(pool, slices).values() for member in items}
        return PoolMembers(listed, listed, {}, None)
    braked = _retained(membership, slices) if ageing or membership.brake_active else {}
    members = {**membership.members, **braked} if braked else membership.members
    published = {} if pool.spec.mode == "DryRun" else members
    return PoolMembers(members, published, braked, frozenset(braked if published else ()))


def _retained(membership: PoolMembership, slices: Mapping[str, Slice]) -> dict[str, MemberState]:
    """Return the silent nodes that the brake retains as members (requirement D8)."""
    if not membership.unreachable:
        return {}
    eligible = membership.retained
    if eligible is None:
        owned = (item for item in slices.values() if item.owner == membership.pool.meta.uid)
        eligible = {member.node for item in owned for member in item.members}
    return {node: state for node, state in membership.unreachable.items() if node in eligible}


def _merge_if_due(membership: PoolMembership, packing: Packing, now: float) -> tuple[Packing, float, float | None]:
    """Merge one slice into the others if allowed now. Return slices, time of the next allowed merge, time to plan."""
    size = membership.pool.spec.slice_size
    allowed = now + MERGE_SECONDS if membership.merge_at is None else membership.merge_at
    index = slice_to_merge(packing, size)
    if index is not None and now >= allowed:
        packing, allowed = merge(packing, index, size), now + MERGE_SECONDS
        index = slice_to_merge(packing, size)
    return packing, allowed, None if index is None else allowed


def _excluded(membership: PoolMembership, retained: int) -> tuple[ExcludedCount, ...]:
    counts = {**membership.excluded, Criterion.OFFLINE: membership.excluded[Criterion.OFFLINE] - retained}
    return tuple(ExcludedCount(reason=reason, count=count) for reason, count in sorted(counts.items()) if count)


def _mass_silence_conditions(membership: PoolMembership, retained: Mapping[str, MemberState]) -> list[ConditionUpdate]:
    if not retained or not membership.brake_active:
        return []
    silent = len(membership.unreachable) + len(membership.suspect)
    text = (
        f"{silent} of {silent + len(membership.members) - len(membership.suspect)} nodes are silent, more than "
        f"brake.maxSilentPercent {membership.pool.spec.brake.max_silent_percent} lets go at once: "
        f"{len(retained)} stay as Suspect until they beat again or 600 s are over"
    )
    return [ConditionUpdate("MassSilence", "True", "BrakeHolds", text)]


def _unchanged(pool: Pool, slices: Mapping[str, Slice], timestamp: str) -> PoolPlan:
    """Return the plan of a pool that is paused or whose spec is invalid: its members stay unchanged."""
    paused = ConditionUpdate(
        "Paused", "True", "Paused", "annotation hotpool.dev/paused: nothing about the pool is changed"
    )
    invalid = ConditionUpdate("Ready", "False", "InvalidSpec", pool.problem or "")
    known = (c for c in pool.status.conditions if c.type in CONDITION_TYPES - {"Paused", PAUSE_IGNORED})
    kept = {c.type: ConditionUpdate(c.type, c.status, c.reason, c.message) for c in known}
    updates = kept | ({"Ready": invalid} if pool.problem else {}) | ({"Paused": paused} if pool.paused else {})
    updates |= {update.type: update for update in pause_ignored(pool.pause_problem)}
    status = pool.status.model_copy(update={"observed_generation": pool.meta.generation})
    conditions = _with_conditions(status, pool, updates.values(), timestamp)
    return PoolPlan({name: item.members for name, item in slices.items()}, conditions)


def _with_conditions(status: PoolStatus, pool: Pool, updates: Iterable[ConditionUpdate], timestamp: str) -> PoolStatus:
    stored = pool.status.conditions
    conditions = update_conditions(updates, stored, CONDITION_TYPES, pool.meta.generation, timestamp)
    ready = next((c.status for c in conditions if c.type == "Ready"), None)
    return status.model_copy(update={"conditions": conditions, "ready": ready})


def _ready(pool: Pool, ready: int) -> ConditionUpdate:
    required = pool.spec.min_members
    if pool.spec.mode == "DryRun":
        text = f"mode DryRun: {ready} nodes would be Ready members; no membership is written"
        return ConditionUpdate("Ready", "False", "DryRun", text)
    if has_no_requirements(pool.spec):
        return ConditionUpdate(
            "Ready", "False", "EmptyRequirements", "spec.requires is empty: require something, or set matchAll: true"
        )
    text = f"{ready} Ready members, {required} required"
    return (
        ConditionUpdate("Ready", "True", "EnoughMembers", text)
        if ready >= required
        else ConditionUpdate("Ready", "False", "TooFewMembers", text)
    )


def _undeclared(pool: Pool, types: Mapping[str, int], declared: Declared | None) -> Iterator[Undeclared]:
    known = {type_ for type_, nodes in types.items() if nodes}
    found = undeclared_words(pool.spec.requires.types, known, declared or {})
    return (item for item in found if declared is not None or item.reason == "UnknownType")


def _service_conditions(membership: PoolMembership, refusal: str) -> list[ConditionUpdate]:
    """Return why the pool has no Service although its spec asks for one (requirement D12)."""
    pool, taken = membership.pool, membership.service_name_taken
    if pool.spec.service is None:
        return []
    if refusal:
        return [ConditionUpdate("ServiceNotAllowed", "True", "NotAllowed", refusal)]
    if taken is None:  # not known yet: keep the condition, so that a restart writes nothing
        known = (condition for condition in pool.status.conditions if condition.type == "ServiceNameTaken")
        return [ConditionUpdate(c.type, c.status, c.reason, c.message) for c in known]
    return [ConditionUpdate("ServiceNameTaken", "True", "NotOurs", taken)] if taken else []


def _packing(pool: Pool, slices: Mapping[str, Slice]) -> Packing:
    """Return slice index → members, of slices whose name is one that the pool would give."""
    named = ((stem_and_index(name), item) for name, item in slices.items())
    return {index: item.members for (stem, index), item in named if stem == pool.meta.name and index is not None}


def plan_node(view: NodeView, timestamp: str) -> NodePlan:
    """Plan one node: its conditions (requirement C1), and its types for Redis (E3). `timestamp`: RFC 3339."""
    node, report = view.node, view.node.report
    before = {kind: (recorded.status, recorded.since) for kind, recorded in node.conditions.items()}
    updates = [node_ready(view), _draining(view), *_addresses(view), *_commands(node)]
    hidden = report is None or report.leaving or view.shutdown is not None or view.liveness is Liveness.OFFLINE
    types = None if hidden or report is None else report.types
    return NodePlan(set_conditions(updates, before, node.meta.generation, timestamp), types)


def node_ready(view: NodeView) -> ConditionUpdate:
    """Return the condition Ready of a node, the summary of its state (requirement C1)."""
    node, report = view.node, view.node.report
    if report is None and node.problem:
        return ConditionUpdate("Ready", "False", "InvalidReport", node.problem)
    if report is None:
        return ConditionUpdate("Ready", "Unknown", "AwaitingReport", "no agent has reported yet")
    out = _out_of_all_pools(view, leaving=report.leaving)
    if out:
        return out
    if view.liveness is Liveness.SUSPECT:
        return ConditionUpdate("Ready", "Unknown", "Suspect", "no heartbeat for 3 intervals: offered last")
    if view.kube_problem:  # False, because Unknown would start the 600 s of silence (C4)
        return ConditionUpdate("Ready", "False", view.kube_problem, f"{view.kube_problem_text}: offered last")
    if node.drain:
        return ConditionUpdate("Ready", "False", "Draining", "spec.drain: offered no new work")
    if view.drained_by_agent:
        return ConditionUpdate("Ready", "False", "Draining", "the agent drains the node: offered no new work")
    if view.cordoned:
        return ConditionUpdate("Ready", "False", "Cordoned", "the Node is cordoned: offered no new work")
    return ConditionUpdate("Ready", "True", "Live", "the agent reports and beats")


def _out_of_all_pools(view: NodeView, *, leaving: bool) -> ConditionUpdate | None:
    if view.liveness is Liveness.OFFLINE and not view.seen:
        return ConditionUpdate("Ready", "Unknown", "AwaitingHeartbeat", "no heartbeat since the operator started")
    if view.liveness is Liveness.OFFLINE:
        return ConditionUpdate("Ready", "Unknown", "Offline", "no heartbeat for 4 intervals: out of all pools")
    if leaving:
        return ConditionUpdate("Ready", "False", "Leaving", "the agent announced that it leaves")
    if view.shutdown:
        text = f"the Node is shut down ({describe_shutdown(view.shutdown)}): out of all pools"
        reason = NODE_SHUTDOWN if view.shutdown == SHUTDOWN_MESSAGE else NODE_OUT_OF_SERVICE
        return ConditionUpdate("Ready", "False", reason, text)
    return None


def _draining(view: NodeView) -> ConditionUpdate:
    leaving = view.node.report is not None and view.node.report.leaving
    requests = [
        *(["spec.drain is true"] if view.node.drain else []),
        *(["the agent reports draining (hotpool-agent drain)"] if view.drained_by_agent else []),
    ]
    if requests:
        cordoned = ["the Node is cordoned"] if view.cordoned else []
        return ConditionUpdate("Draining", "True", "Requested", ", and ".join([*requests, *cordoned]))
    if view.cordoned:
        return ConditionUpdate("Draining", "True", "Cordoned", "the Node is cordoned (its spec.unschedulable is true)")
    return (
        ConditionUpdate("Draining", "True", "Leaving")
        if leaving
        else ConditionUpdate("Draining", "False", "NotRequested")
    )


def _addresses(view: NodeView) -> Iterable[ConditionUpdate]:
    """Yield the conditions about claimed addresses. One that is not needed is False if it is there, else left out."""
    for type_, reason, conflict in (
        (ADDRESS_NOT_ALLOWED, "NotAllowed", False),
        (ADDRESS_CONFLICT, "ClaimedByOthers", True),
    ):
        problems = [item for item in view.address_problems if (item.rival is not None) == conflict]
        if problems:
            yield ConditionUpdate(type_, "True", reason, describe(problems))
        elif type_ in view.node.conditions:
            yield ConditionUpdate(type_, "False", "NoProblem")


def _commands(node: Node) -> Iterable[ConditionUpdate]:
    """Yield the condition about commands without effect, as `_addresses`."""
    if node.ignored_commands:
        yield ConditionUpdate("CommandIgnored", "True", "NoSuchService", f"spec.services: {node.ignored_commands}")
    elif "CommandIgnored" in node.conditions:
        yield ConditionUpdate("CommandIgnored", "False", "NoProblem")
