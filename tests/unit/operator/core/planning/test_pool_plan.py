"""Desired state of a pool and a node, and the writes that it needs (requirements C1, D2, D4, D7, D10, D11).

Requirements C6, E3, F1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import condition, member, node, pool, report, requires, service, slice_, view

from hotpool.api.meta import Condition
from hotpool.api.pool import PoolStatus
from hotpool.core.model import Liveness, Member, Meta, NodeView, Pool, Slice
from hotpool.core.planning.diff import (
    CreateSlice,
    DeleteSlice,
    UpdateSlice,
    conditions_differ,
    diff_slices,
    status_differs,
    status_is_urgent,
)
from hotpool.core.planning.pool_plan import PoolPlan, plan_members, plan_node, plan_pool
from hotpool.core.pool_membership import PoolMembership

ASR = report(service("a", "asr"))
KNOWN = {"asr": 1}
NOW, LATER = "2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"


def named(
    name: str, liveness: Liveness = Liveness.LIVE, *, drain: bool = False, types: Sequence[str] = ("asr",)
) -> NodeView:
    return NodeView(node(name, report(*(service(t, t) for t in types)), drain=drain), liveness)


def membership_of(of: Pool, *views: NodeView) -> PoolMembership:
    membership = PoolMembership(of)
    for seen in views:
        membership.update(seen.node.meta.name, seen)
    return membership


def asr_pool(name: str = "asr", **more: Any) -> Pool:
    return pool(name, requires=requires("asr"), **more)


def conditions_of(status: PoolStatus) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in status.conditions}


def stored(of: Pool, plan: PoolPlan) -> tuple[Pool, dict[str, Slice]]:
    """Return the pool and slices stored after a write of the plan."""
    slices = {
        name: replace(slice_(of.meta.name, 0, name=name, uid=of.meta.uid), members=m) for name, m in plan.slices.items()
    }
    return replace(of, status=plan.status), slices


def test_members_states_and_counts() -> None:
    views = [named("a"), named("b", Liveness.SUSPECT), named("c", drain=True), named("d", types=["tts"])]
    membership = membership_of(asr_pool(), *views)
    plan = plan_pool(membership, {}, KNOWN, 0.0, NOW)
    assert plan_members(membership, {}).published == {"a": "Ready", "b": "Suspect", "c": "Draining"}
    assert plan.slices == {"asr-0": (member("a", since=NOW), member("b", "Suspect", NOW), member("c", "Draining", NOW))}
    status = plan.status
    assert (status.members, status.ready_members, status.suspect_members, status.draining_members) == (3, 1, 1, 1)
    assert [(item.reason, item.count) for item in status.excluded] == [("TypeNotReady", 1)]
    assert (status.slices, status.last_change, status.ready, status.observed_generation) == (1, NOW, "True", 1)


@given(
    st.lists(st.sampled_from(["Ready", "Suspect", "Draining", "Out"]), max_size=12),
    st.integers(1, 4),
    st.dictionaries(st.integers(0, 4), st.lists(st.sampled_from([f"n{i}" for i in range(14)]), max_size=5), max_size=4),
)
def test_nothing_differs_after_applying_a_plan(states: list[str], size: int, found: Mapping[int, list[str]]) -> None:
    of = asr_pool(sliceSize=size, minMembers=2)
    builders: dict[str, Callable[[str], NodeView]] = {
        "Ready": named,
        "Suspect": lambda name: named(name, Liveness.SUSPECT),
        "Draining": lambda name: named(name, drain=True),
        "Out": lambda name: named(name, types=["tts"]),
    }
    membership = membership_of(of, *(builders[state](f"n{number}") for number, state in enumerate(states)))
    slices = {f"asr-{index}": slice_("asr", index, *names) for index, names in found.items()}
    plan = plan_pool(membership, slices, KNOWN, 0.0, NOW)
    membership.pool, applied = stored(of, plan)
    again = plan_pool(membership, applied, KNOWN, 1.0, LATER)
    assert diff_slices(membership.pool, applied, again.slices) == []
    assert not status_differs(membership.pool.status, again.status)


# Conditions.


def test_a_pool_without_requirements_has_a_condition() -> None:
    membership = membership_of(pool("p"), named("a"))
    plan = plan_pool(membership, {}, KNOWN, 0.0, NOW)
    assert conditions_of(plan.status) == {"Ready": ("False", "EmptyRequirements")}
    assert (plan_members(membership, {}).published, plan.slices) == ({}, {})
    everyone = plan_pool(membership_of(pool("p", requires={"matchAll": True}), named("a")), {}, KNOWN, 0.0, NOW)
    assert conditions_of(everyone.status) == {"Ready": ("True", "EnoughMembers")}


def test_an_unknown_type_is_legal_and_visible() -> None:
    of = pool("p", requires=requires("asr", "llm", "zzz"))
    plan = plan_pool(membership_of(of, named("a")), {}, {"asr": 1, "llm": 0}, 0.0, NOW)
    assert conditions_of(plan.status)["UnknownRequirement"] == ("True", "UnknownType")
    message = next(c.message for c in plan.status.conditions if c.type == "UnknownRequirement")
    assert message == "no node has a service of type llm; also, no node has a service of type zzz"
    known = plan_pool(membership_of(of, named("a")), {}, {"asr": 1, "llm": 1, "zzz": 1}, 0.0, NOW)
    assert "UnknownRequirement" not in conditions_of(known.status)


@pytest.mark.parametrize(("wanted", "expected"), [(0, "True"), (1, "True"), (2, "False")])
def test_ready_means_enough_ready_members(wanted: int, expected: str) -> None:
    membership = membership_of(
        asr_pool(minMembers=wanted), named("a"), named("b", Liveness.SUSPECT), named("c", drain=True)
    )
    assert plan_pool(membership, {}, KNOWN, 0.0, NOW).status.ready == expected


def test_conditions_keep_their_transition_time_while_their_status_stays() -> None:
    of = asr_pool(minMembers=2)
    membership = membership_of(of, named("a"))
    membership.pool, _ = stored(of, plan_pool(membership, {}, KNOWN, 0.0, NOW))
    none = membership_of(membership.pool)
    same = plan_pool(none, {}, KNOWN, 1.0, LATER).status.conditions[0]
    assert (same.status, same.last_transition_time, same.message) == ("False", NOW, "0 Ready members, 2 required")
    enough = membership_of(membership.pool, named("a"), named("b"))
    assert plan_pool(enough, {}, KNOWN, 1.0, LATER).status.conditions[0].last_transition_time == LATER


def test_last_change_changes_with_membership_only() -> None:
    of = asr_pool()
    membership = membership_of(of, named("a"))
    membership.pool, slices = stored(of, plan_pool(membership, {}, KNOWN, 0.0, NOW))
    membership.update("a", named("a", Liveness.SUSPECT))
    assert plan_pool(membership, slices, KNOWN, 1.0, LATER).status.last_change == NOW
    membership.update("b", named("b"))
    assert plan_pool(membership, slices, KNOWN, 1.0, LATER).status.last_change == LATER


# Urgent or not.


def test_counts_by_reason_alone_are_not_urgent() -> None:
    of = asr_pool()
    membership = membership_of(of, named("a"))
    before = plan_pool(membership, {}, KNOWN, 0.0, NOW)
    membership.pool, slices = stored(of, before)
    membership.update("x", named("x", types=["tts"]))
    slow = plan_pool(membership, slices, KNOWN, 1.0, LATER)
    assert status_differs(before.status, slow.status)
    assert not status_is_urgent(before.status, slow.status)
    membership.update("b", named("b"))
    assert status_is_urgent(before.status, plan_pool(membership, slices, KNOWN, 1.0, LATER).status)


# A pool that must not change.


@pytest.mark.parametrize("of", [asr_pool(paused=True), asr_pool(problem="spec.x: bad")], ids=["paused", "invalid"])
def test_a_paused_or_invalid_pool_keeps_its_members_everywhere_and_has_a_condition(of: Pool) -> None:
    slices = {"asr-0": slice_("asr", 0, "gone", members=[{"node": "gone", "state": "Suspect", "since": "t"}])}
    membership = membership_of(of, named("new"))
    plan = plan_pool(membership, slices, KNOWN, 0.0, NOW)
    assert diff_slices(of, slices, plan.slices) == []
    assert plan_members(membership, slices).published == {"gone": "Suspect"}
    expected = {"Paused": ("True", "Paused")} if of.paused else {"Ready": ("False", "InvalidSpec")}
    assert conditions_of(plan.status) == expected
    written, _ = stored(of, plan)
    assert not status_differs(written.status, plan_pool(membership_of(written), slices, KNOWN, 1.0, LATER).status)


def test_a_foreign_slice_of_a_paused_pool_adds_no_member_and_is_not_written() -> None:
    of = asr_pool(paused=True)
    slices = {"asr-0": slice_("asr", 0, "a"), "asr-x": slice_("asr", 0, "stranger", name="asr-x", uid="other")}
    membership = membership_of(of, named("a"))
    plan = plan_pool(membership, slices, KNOWN, 0.0, NOW)
    assert plan_members(membership, slices).published == {"a": "Ready"}
    assert diff_slices(of, slices, plan.slices) == []


def test_the_condition_paused_is_removed_when_the_pause_ends() -> None:
    of = asr_pool()
    membership = membership_of(of, named("a"))
    membership.pool, slices = stored(of, plan_pool(membership, {}, KNOWN, 0.0, NOW))
    membership.pool = replace(membership.pool, paused=True)
    paused = plan_pool(membership, slices, KNOWN, 1.0, LATER)
    assert conditions_of(paused.status) == {"Ready": ("True", "EnoughMembers"), "Paused": ("True", "Paused")}
    assert paused.status.members == 1
    membership.pool = replace(membership.pool, paused=False, status=paused.status)
    ended = plan_pool(membership, slices, KNOWN, 1.0, LATER)
    assert conditions_of(ended.status) == {"Ready": ("True", "EnoughMembers")}
    assert ended.status.conditions[0].last_transition_time == NOW


# Writes.


def test_slices_are_created_updated_and_deleted_deletions_last() -> None:
    of = asr_pool()
    applied = {
        "asr-0": slice_("asr", 0, "a"),
        "asr-7": slice_("asr", 7, "b"),
        "hand-made": slice_("asr", 0, name="hand-made"),
    }
    planned = {"asr-0": (member("a"), member("b")), "asr-1": (member("c"),)}
    writes = diff_slices(of, applied, planned)
    assert [type(write) for write in writes] == [UpdateSlice, CreateSlice, DeleteSlice, DeleteSlice]


@pytest.mark.parametrize("wrong", [{"owner": "uid-of-a-former-pool"}, {"owner": None}, {"labelled": False}])
def test_a_slice_with_a_wrong_owner_or_label_is_corrected(wrong: dict[str, object]) -> None:
    item = replace(slice_("asr", 0, "a"), **wrong)  # type: ignore[arg-type]
    assert diff_slices(asr_pool(), {"asr-0": item}, {"asr-0": item.members}) == [UpdateSlice(item, item.members)]


@pytest.mark.parametrize("name", ["asr", "asr-", "asr-x", "asr-01", "asr-1-0", "other-0", "asr--1"])
def test_a_slice_with_an_irregular_name_is_deleted_and_its_members_do_not_count(name: str) -> None:
    found = {name: slice_("asr", 0, "a", name=name)}
    plan = plan_pool(membership_of(asr_pool(), named("a")), found, KNOWN, 0.0, NOW)
    assert plan.slices == {"asr-0": (member("a", since=NOW),)}
    assert DeleteSlice(found[name]) in diff_slices(asr_pool(), found, plan.slices)


# Nodes.


@pytest.mark.parametrize(
    ("seen", "ready", "reason", "draining"),
    [
        (view(None), "Unknown", "AwaitingReport", "False"),
        (view({"epoch": -1}), "False", "InvalidReport", "False"),
        (replace(view(ASR, Liveness.OFFLINE), seen=False), "Unknown", "AwaitingHeartbeat", "False"),
        (view(ASR, Liveness.OFFLINE), "Unknown", "Offline", "False"),
        (view(ASR, Liveness.OFFLINE, drain=True), "Unknown", "Offline", "True"),
        (view(ASR, Liveness.SUSPECT), "Unknown", "Suspect", "False"),
        (view({**ASR, "leaving": True}), "False", "Leaving", "True"),
        (view(ASR, drain=True), "False", "Draining", "True"),
        (view({**ASR, "draining": True}), "False", "Draining", "True"),
        (view({**ASR, "draining": True, "leaving": True}), "False", "Leaving", "True"),
        (view(ASR), "True", "Live", "False"),
    ],
)
def test_ready_summarises_liveness_and_draining(seen: NodeView, ready: str, reason: str, draining: str) -> None:
    first, second = plan_node(seen, NOW).conditions
    assert (first.type, first.status, first.reason) == ("Ready", ready, reason)
    assert (second.type, second.status) == ("Draining", draining)


@pytest.mark.parametrize(
    ("people", "agent", "message"),
    [
        (True, False, "spec.drain is true"),
        (False, True, "the agent reports draining (hotpool-agent drain)"),
        (True, True, "spec.drain is true, and the agent reports draining (hotpool-agent drain)"),
    ],
)
def test_condition_draining_names_who_drains(*, people: bool, agent: bool, message: str) -> None:
    _, found = plan_node(view({**ASR, "draining": agent}, drain=people), NOW).conditions
    assert (found.reason, found.message) == ("Requested", message)


@pytest.mark.parametrize("seen", [view(None), view(ASR, Liveness.OFFLINE), view({**ASR, "leaving": True})])
def test_redis_does_not_list_a_node_without_capability(seen: NodeView) -> None:
    assert plan_node(seen, NOW).types is None


def test_redis_lists_the_types_of_every_other_node() -> None:
    assert plan_node(view(ASR, Liveness.SUSPECT), NOW).types == view(ASR).node.report.types  # type: ignore[union-attr]


def wire(conditions: Sequence[Condition]) -> list[dict[str, object]]:
    return [item.model_dump(by_alias=True) for item in conditions]


def test_conditions_are_written_on_transitions_only() -> None:
    planned = plan_node(view(ASR), NOW).conditions
    assert conditions_differ({}, planned)
    known = node("n", ASR, conditions=wire(planned))
    again = plan_node(NodeView(known, Liveness.LIVE), LATER).conditions
    assert not conditions_differ(known.conditions, again)
    assert [c.last_transition_time for c in again] == [NOW, NOW]
    suspect = plan_node(NodeView(known, Liveness.SUSPECT), LATER).conditions
    assert conditions_differ(known.conditions, suspect)
    assert [c.last_transition_time for c in suspect] == [LATER, NOW]


def test_another_cause_with_the_same_reason_is_written() -> None:
    both = NodeView(node("n", {**ASR, "draining": True}, drain=True), Liveness.LIVE)
    known = replace(both.node, conditions=node("n", conditions=wire(plan_node(both, NOW).conditions)).conditions)
    again = plan_node(NodeView(known, Liveness.LIVE), LATER).conditions
    assert not conditions_differ(known.conditions, again)
    undrained = replace(known, report=node("n", ASR).report)
    assert conditions_differ(known.conditions, plan_node(NodeView(undrained, Liveness.LIVE), LATER).conditions)


def test_a_change_of_the_spec_renews_the_observed_generation() -> None:
    planned = plan_node(view(ASR), NOW).conditions
    known = node("n", ASR, conditions=wire(planned))
    known = replace(known, meta=Meta("n", "u", 2, generation=2))
    assert conditions_differ(known.conditions, plan_node(NodeView(known, Liveness.LIVE), LATER).conditions)


def test_conditions_of_others_are_ignored() -> None:
    planned = plan_node(view(ASR), NOW).conditions
    known = node("n", ASR, conditions=[*wire(planned), condition("GpuHealthy")])
    assert not conditions_differ(known.conditions, plan_node(NodeView(known, Liveness.LIVE), LATER).conditions)


def test_members_keep_their_since_when_their_state_changes() -> None:
    slices = {"asr-0": slice_("asr", 0, "a")}
    plan = plan_pool(membership_of(asr_pool(), named("a", Liveness.SUSPECT)), slices, KNOWN, 0.0, NOW)
    assert plan.slices["asr-0"] == (Member(node="a", state="Suspect", since="t"),)
