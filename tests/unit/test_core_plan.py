"""Plans of pools, and which pools a generator makes (behaviour D2, D4, D5, D6, D10, D11)."""

import re
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.builders import node, open_state, pool, report, service

from hotpool.api.generator import GeneratorSpec
from hotpool.api.meta import LABEL_PATTERN, POOL_NAME_MAX
from hotpool.core.diff import CreateSlice, UpdateSlice, diff_slices, status_differs, status_is_urgent
from hotpool.core.generate import admit, pool_name, pool_spec
from hotpool.core.model import Generator, Kind, Meta, Pool, Slice
from hotpool.core.plan import PoolPlan, plan_pool
from hotpool.core.plan_generator import plan_generator
from hotpool.core.state import State

NOW, LATER = "2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"


def speech(name: str) -> dict[str, Any]:
    both = {"languages": ["zh", "en"]}
    rules = [{"kind": "any_to_any", **both}]
    services = (service("a", "asr", **both), service("m", "nmt", rules=rules), service("t", "tts", **both))
    return report(*services, instance=name)


def state_with(made: Pool, *nodes: str) -> State:
    state = open_state()
    state.observe(made, 0)
    for name in nodes:
        state.observe(node(name, speech(name)), 0)
    return state


def applied(made: Pool, plan: PoolPlan) -> dict[str, Slice]:
    return {
        name: Slice(Meta(name, f"uid-{name}", 1), made.meta.name, 1, members, made.meta.uid)
        for name, members in plan.slices.items()
    }


def test_d4_what_is_applied_needs_no_further_write() -> None:
    made = pool("p", requires={"types": [{"type": "asr"}]})
    state = state_with(made, "n1", "n2")
    plan = plan_pool(state.pools["p"], {}, state.known_types, NOW)
    assert [type(write) for write in diff_slices(made, {}, plan.slices)] == [CreateSlice]
    slices = applied(made, plan)
    state.observe(replace(made, meta=replace(made.meta, version=2), status=plan.status), 0)
    again = plan_pool(state.pools["p"], slices, state.known_types, LATER)
    assert diff_slices(made, slices, again.slices) == []
    assert not status_differs(plan.status, again.status)
    assert again.status.ready == "True"


def test_d10_a_slice_of_a_former_pool_is_taken_over() -> None:
    made = pool("p", requires={"types": [{"type": "asr"}]})
    state = state_with(made, "n1")
    plan = plan_pool(state.pools["p"], {}, state.known_types, NOW)
    foreign = {name: replace(item, owner="uid-of-another") for name, item in applied(made, plan).items()}
    assert [type(write) for write in diff_slices(made, foreign, plan.slices)] == [UpdateSlice]


def test_a_paused_pool_keeps_its_members_and_says_so() -> None:
    made = pool("p", requires={"types": [{"type": "asr"}]})
    state = state_with(made, "n1")
    slices = applied(made, plan_pool(state.pools["p"], {}, state.known_types, NOW))
    state.observe(replace(made, meta=replace(made.meta, version=2), paused=True), 0)
    state.forget(Kind.NODE, "n1", "uid-n1")
    plan = plan_pool(state.pools["p"], slices, state.known_types, LATER)
    assert diff_slices(made, slices, plan.slices) == []
    assert plan.members == {"n1": "Ready"}
    assert [c.type for c in plan.status.conditions] == ["Paused"]


def test_only_counts_by_reason_may_wait() -> None:
    made = pool("p", requires={"types": [{"type": "asr"}]})
    state = state_with(made, "n1")
    first = plan_pool(state.pools["p"], {}, state.known_types, NOW).status
    state.observe(node("n2", report(service("q", "llm"))), 0)
    slices = applied(made, plan_pool(state.pools["p"], {}, state.known_types, NOW))
    state.observe(replace(made, meta=replace(made.meta, version=2), status=first), 0)
    second = plan_pool(state.pools["p"], slices, state.known_types, LATER).status
    assert status_differs(first, second)
    assert not status_is_urgent(first, second)


RULE = GeneratorSpec.model_validate(
    {"rule": {"languagePairs": {"manyToOne": True}}, "template": {"spec": {"requires": {"types": [{"type": "asr"}]}}}}
)


def generator(spec: GeneratorSpec = RULE) -> Generator:
    return Generator(Meta("speech", "uid-gen", 1, 1), spec)


def generated(key: str) -> Pool:
    name = pool_name("speech", key)
    return Pool(Meta(name, f"uid-{name}", 1), pool_spec("speech", key, RULE), owner="uid-gen")


def test_d5_a_pool_for_each_pair_and_target_that_nodes_offer() -> None:
    state = open_state()
    state.observe(generator(), 0)
    state.observe(node("n1", speech("n1")), 0)
    plan = plan_generator(state.generators["speech"], {}, 0, NOW)
    assert {spec.generated.key for spec in plan.create.values() if spec.generated} == {"zh-en", "en-zh", "*-en", "*-zh"}
    assert plan.status.pools == 4


def test_d5_an_edited_pool_is_corrected_and_a_hand_made_one_never_touched() -> None:
    state = open_state()
    state.observe(generator(), 0)
    state.observe(node("n1", speech("n1")), 0)
    edited = generated("zh-en")
    edited = replace(edited, spec=edited.spec.model_copy(update={"min_members": 9}))
    by_hand = replace(generated("en-zh"), owner=None)
    pools = {edited.meta.name: edited, by_hand.meta.name: by_hand}
    plan = plan_generator(state.generators["speech"], pools, 0, NOW)
    assert plan.correct == {edited.meta.name: pool_spec("speech", "zh-en", RULE)}
    assert by_hand.meta.name not in {*plan.create, *plan.correct, *(p.meta.name for p in plan.remove)}


def test_d5_an_empty_pool_goes_after_its_grace() -> None:
    state = open_state()
    state.observe(generator(), 0)
    old = generated("ja-en")
    pools = {old.meta.name: old}
    first = plan_generator(state.generators["speech"], pools, 100, NOW)
    assert (first.remove, first.recheck_at) == ((), 700)
    assert plan_generator(state.generators["speech"], pools, 699, NOW).remove == ()
    assert plan_generator(state.generators["speech"], pools, 700, NOW).remove == (old,)


def test_d5_admission_ranks_by_nodes_then_name_and_reports_the_rest() -> None:
    spec = RULE.model_copy(update={"max_pools": 3, "min_nodes": 2})
    found = admit({"a-b": 1, "c-d": 5, "b-c": 2, "a-c": 2, "d-e": 2}, ["x-y"], spec)
    assert found.admitted == ("x-y", "c-d", "a-c")
    assert found.left_out == (("b-c", 2, "MaxPools"), ("d-e", 2, "MaxPools"), ("a-b", 1, "MinNodes"))


@given(st.from_regex(r"[a-z][a-z0-9-]{0,38}[a-z0-9]", fullmatch=True), st.text(min_size=1, max_size=253))
def test_d6_names_are_stable_labels_and_distinct(name: str, key: str) -> None:
    made = pool_name(name, key)
    assert len(made) <= POOL_NAME_MAX
    assert re.fullmatch(LABEL_PATTERN.strip("^$"), made)
    assert made == pool_name(name, key)
    assert made != pool_name(name, key + "x")
