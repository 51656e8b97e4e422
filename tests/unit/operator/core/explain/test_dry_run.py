"""Nodes that would join and leave if a pool or a generator were applied (requirements D5, D8, F2, F3)."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support.builders import generator, pool, report, requires, service, speech, view

from hotpool.api.generator import NotAdmitted
from hotpool.api.meta import Condition
from hotpool.api.pool import PoolStatus
from hotpool.core.explain.dry_run import StoredFleet, compare_generator, compare_pool
from hotpool.core.generators.admission import key_rule, pool_name, pool_spec
from hotpool.core.model import Generator, Liveness, Member, Meta, NodeView, Pool

VIEWS = {
    "a": view(report(service("s", "asr"), service("t", "tts"))),
    "b": view(report(service("s", "asr"))),
    "c": view(report(service("t", "tts"))),
    "silent": view(report(service("s", "asr"), service("t", "tts")), Liveness.OFFLINE),
}
ASR: dict[str, Any] = {"requires": requires("asr")}
TTS: dict[str, Any] = {"requires": requires("tts")}
IN = Member("n", "Ready", "t")


def stored(*pools: Pool, views: dict[str, NodeView] | None = None, **members: list[str]) -> StoredFleet:
    listed = {name: dict.fromkeys(nodes, IN) for name, nodes in members.items()}
    return StoredFleet(views or VIEWS, {item.meta.name: item for item in pools}, {}, listed)


def test_joins_and_leaves_with_reasons() -> None:
    change = compare_pool(pool("p", minMembers=2, **TTS), stored(pool("p", **ASR), p=["a", "b"]))
    assert (change.kind, change.joins, change.leaves) == (
        "changed",
        {"c": "Ready"},
        {"b": "TypeNotReady: type tts ready"},
    )
    assert (change.members_before, change.members_after) == (2, 2)
    assert change.differs


def test_an_applied_object_shows_no_difference_even_if_the_operator_is_late() -> None:
    change = compare_pool(pool("p", **ASR), stored(pool("p", **ASR), p=["c"]))
    assert (change.kind, change.differs, change.joins, change.leaves) == ("unchanged", False, {}, {})


def test_a_new_pool_is_a_difference_even_without_members() -> None:
    change = compare_pool(pool("p", requires=requires("llm")), stored())
    assert (change.kind, change.joins, change.differs) == ("new", {}, True)
    assert (change.ready_before, change.ready_after) == (None, False)


def test_too_few_members_make_the_pool_unready() -> None:
    change = compare_pool(pool("p", minMembers=3, **ASR), stored(pool("p", **ASR)))
    assert (change.joins, change.leaves) == ({}, {})
    assert (change.ready_before, change.ready_after, change.differs) == (True, False, True)


def test_mode_dry_run_has_no_members_and_empties_an_active_pool() -> None:
    change = compare_pool(pool("p", mode="DryRun", **ASR), stored(pool("p", **ASR), p=["a", "b"]))
    assert change.leaves == {"a": "mode DryRun", "b": "mode DryRun"}
    back = compare_pool(pool("p", **ASR), stored(pool("p", mode="DryRun", **ASR)))
    assert back.joins == {"a": "Ready", "b": "Ready"}


def test_a_paused_pool_keeps_its_members_with_any_spec() -> None:
    change = compare_pool(pool("p", paused=True, **TTS), stored(pool("p", paused=True, **ASR), p=["a", "b"]))
    assert (change.kind, change.joins, change.leaves) == ("changed", {}, {})


@pytest.mark.parametrize(("spec", "leaves"), [(ASR, {}), ({"requires": requires("llm")}, {"silent": "TypeNotReady"})])
def test_a_retained_node_leaves_only_if_the_spec_excludes_it(spec: dict[str, Any], leaves: dict[str, str]) -> None:
    condition = Condition(type="MassSilence", status="True", last_transition_time="t", reason="BrakeHolds")
    before = pool("p", status=PoolStatus(conditions=(condition,)), **TTS)
    retained = StoredFleet(VIEWS, {"p": before}, {}, {"p": {"silent": Member("n", "Suspect", "t")}})
    change = compare_pool(replace(before, spec=pool("p", **spec).spec), retained)
    assert {node: why.partition(":")[0] for node, why in change.leaves.items() if node == "silent"} == leaves


SPEECH = {"n1": view(speech("zh", "en")), "n2": view(speech("zh", "en", "ja"))}
MAKES: dict[str, Any] = {"template": {"spec": {"requires": requires("asr", "nmt", "tts")}}}


def pools_of(owner: Generator, *keys: str) -> list[Pool]:
    """Return the pools that a generator would make."""
    name = owner.meta.name
    specs = {pool_name(name, key): pool_spec(name, key, key_rule(owner.spec)) for key in keys}
    return [Pool(Meta(known, f"uid-{known}", 1), spec, owner=owner.meta.uid) for known, spec in specs.items()]


def fleet(owner: Generator, *pools: Pool) -> StoredFleet:
    members = {item.meta.name: dict.fromkeys(SPEECH, IN) for item in pools}
    return StoredFleet(SPEECH, {item.meta.name: item for item in pools}, {owner.meta.name: owner}, members)


def test_a_new_generator_lists_its_pools_and_the_keys_not_admitted() -> None:
    known = StoredFleet(SPEECH, {}, {}, {})
    change = compare_generator(generator("speech", maxPools=2, **MAKES), known, timestamp="t")
    assert change.kind == "new"
    assert {item.name: item.members_after for item in change.pools} == {
        pool_name("speech", "en-zh"): 2,
        pool_name("speech", "zh-en"): 2,
    }
    assert change.not_admitted_count == 4
    assert change.not_admitted[0] == NotAdmitted(key="en-ja", nodes=1, reason="MaxPools")


def test_an_unchanged_generator_shows_no_difference() -> None:
    owner = generator("speech", minNodes=2, **MAKES)
    known = fleet(owner, *pools_of(owner, "zh-en", "en-zh"))
    change = compare_generator(owner, known, timestamp="t")
    assert (change.kind, change.pools, change.differs) == ("unchanged", (), False)


def test_surplus_pools_are_removed_at_the_end_of_the_grace() -> None:
    owner = generator("speech", minNodes=2, **MAKES)
    full = PoolStatus(members=2)
    pools = [replace(item, status=full) for item in pools_of(owner, "zh-en", "en-zh")]
    other = generator("speech", minNodes=2, graceSeconds=60, template={"spec": {"requires": requires("llm")}})
    change = compare_generator(other, fleet(owner, *pools), timestamp="t")
    assert [(item.name, item.kind, item.after_seconds) for item in change.pools] == [
        (name, "removed", 60) for name in sorted(item.meta.name for item in pools)
    ]
    at_once = generator("speech", graceSeconds=0, template={"spec": {"requires": requires("llm")}})
    change = compare_generator(at_once, fleet(owner, *pools), timestamp="t")
    assert [item.after_seconds for item in change.pools] == [0, 0]


def test_a_changed_template_changes_the_pools_that_stay() -> None:
    owner = generator("speech", minNodes=2, **MAKES)
    other = generator("speech", minNodes=2, template={"spec": {**MAKES["template"]["spec"], "minMembers": 3}})
    change = compare_generator(other, fleet(owner, *pools_of(owner, "zh-en")), timestamp="t")
    kinds = {item.name: (item.kind, item.ready_before, item.ready_after) for item in change.pools}
    assert kinds[pool_name("speech", "zh-en")] == ("changed", True, False)
    assert kinds[pool_name("speech", "en-zh")] == ("new", None, False)


MANY = [f"m{index:03}" for index in range(504)]
"""More keys than one plan creates pools for."""
MODELS = generator("models", rule={"attributeValues": {"type": "llm", "key": "models"}}, maxPools=5000, graceSeconds=60)


def test_more_pools_than_one_plan_creates_are_all_listed() -> None:
    halves = [{"key": "models", "values": MANY[:252]}, {"key": "models", "values": MANY[252:]}]
    offers = report(*(service(f"s{index}", "llm", attributes=[item]) for index, item in enumerate(halves)))
    change = compare_generator(MODELS, StoredFleet({"n": view(offers)}, {}, {}, {}), timestamp="t")
    assert [item.kind for item in change.pools] == ["new"] * len(MANY)


def test_more_pools_than_one_plan_removes_are_all_listed() -> None:
    pools = {item.meta.name: item for item in pools_of(MODELS, *MANY)}
    change = compare_generator(MODELS, StoredFleet({}, pools, {"models": MODELS}, {}), timestamp="t")
    assert [(item.kind, item.after_seconds) for item in change.pools] == [("removed", 60)] * len(MANY)


def test_a_removed_pool_makes_room_for_a_key_not_admitted_before() -> None:
    owner = generator("speech", maxPools=1, graceSeconds=60, **MAKES)
    stale = pools_of(owner, "zu-sw")
    change = compare_generator(owner, fleet(owner, *stale), timestamp="t")
    assert {item.name: item.kind for item in change.pools} == {
        stale[0].meta.name: "removed",
        pool_name("speech", "en-zh"): "new",
    }


def test_a_paused_generator_has_a_note() -> None:
    change = compare_generator(
        generator("speech", paused=True, **MAKES), StoredFleet(SPEECH, {}, {}, {}), timestamp="t"
    )
    assert change.pools == ()
    assert "paused" in change.note
