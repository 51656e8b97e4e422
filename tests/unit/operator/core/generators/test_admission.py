"""Generated pools: names, admission, and pools created, corrected and removed (requirements D5, D6)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.builders import generator, node, pool, requires, speech, view
from tests.support.generators import generated_pool, generator_entry, plan_for

from hotpool.api.meta import GENERATOR_NAME_MAX, PAIR_OR_ANY_PATTERN, POOL_NAME_MAX
from hotpool.api.names import LABEL_PATTERN
from hotpool.core.generators import key_ranking
from hotpool.core.generators.admission import Admission, admit, key_rule, pool_name, pool_spec
from hotpool.core.generators.key_ranking import KeyRanking
from hotpool.core.model import Generator, Liveness, NodeView
from hotpool.core.planning.generator_plan import GeneratorPlan


def keys_of(plan: GeneratorPlan) -> set[str]:
    return {spec.generated.key for spec in plan.create.values() if spec.generated}


# Names.

CODE = st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True)
KEY = st.builds(lambda source, target: f"{source}-{target}", st.one_of(CODE, st.just("*")), CODE)
NAME = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)


@given(NAME, st.lists(KEY, min_size=2, max_size=30, unique=True))
def test_names_are_stable_distinct_dns_labels(by: str, found: list[str]) -> None:
    assert len(by) <= GENERATOR_NAME_MAX
    names = [pool_name(by, key) for key in found]
    assert len(set(names)) == len(found)
    assert names == [pool_name(by, key) for key in found]
    for name in names:
        assert re.fullmatch(LABEL_PATTERN, name)
        assert len(name) <= POOL_NAME_MAX
        assert name.startswith(f"{by}-")


def test_names_never_change_from_one_version_to_the_next() -> None:
    assert pool_name("speech", "zh-en") == "speech-zh-en-94feb836"
    assert pool_name("speech", "*-en") == "speech-any-en-5ea773c5"
    assert pool_name("speech", "any-en") != pool_name("speech", "*-en")


@given(KEY)
def test_the_key_is_data_in_the_spec_and_the_pool_requires_its_pair(key: str) -> None:
    template = {"spec": {"requires": requires("llm", languagePairs={"allOf": ["ja-ko"]}), "minMembers": 3}}
    spec = pool_spec("g", key, key_rule(generator("g", template=template).spec))
    assert re.fullmatch(PAIR_OR_ANY_PATTERN, key)
    assert spec.generated
    assert (spec.generated.by, spec.generated.key) == ("g", key)
    assert spec.generated.kind == ("ManyToOne" if key.startswith("*") else "LanguagePair")
    assert spec.requires.language_pairs
    assert set(spec.requires.language_pairs.all_of) == {"ja-ko", key}
    assert [item.type for item in spec.requires.types] == ["llm"]
    assert spec.min_members == 3


# Admission.


def admitted(nodes: Mapping[str, int], existing: Iterable[str], by: Generator) -> Admission:
    ranked = KeyRanking()
    for key, number in nodes.items():
        ranked.add(key, number)
    return admit(ranked, tuple(existing), by.spec, lambda key: pool_name("g", key), lambda _: True)


def test_rank_is_by_nodes_then_by_name_and_keys_not_admitted_are_reported() -> None:
    found = admitted({"b-a": 3, "a-b": 3, "c-d": 9, "x-y": 1}, [], generator("g", minNodes=2, maxPools=2))
    assert found.admitted == ("c-d", "a-b")
    assert found.not_admitted == (("b-a", 3, "MaxPools"), ("x-y", 1, "MinNodes"))
    assert found.not_admitted_count == 2


def test_an_admitted_key_keeps_its_place() -> None:
    found = admitted({"c-d": 9, "e-f": 8, "a-b": 1}, ["a-b"], generator("g", minNodes=2, maxPools=2))
    assert found.admitted == ("a-b", "c-d")
    assert found.not_admitted == (("e-f", 8, "MaxPools"),)


@given(
    st.dictionaries(KEY, st.integers(1, 9), max_size=40),
    st.lists(KEY, max_size=4, unique=True),
    st.integers(1, 5),
    st.integers(1, 8),
)
def test_every_key_is_admitted_or_reported_in_the_order_of_rank(
    nodes: dict[str, int], existing: list[str], least: int, most: int
) -> None:
    found = admitted(nodes, existing, generator("g", minNodes=least, maxPools=most))
    ranked = [key for key in sorted(nodes, key=lambda key: (-nodes[key], key)) if key not in existing]
    room = max(0, most - len(existing))
    new = [key for key in ranked if nodes[key] >= least][:room]
    assert found.admitted == (*existing, *new)
    out = [key for key in ranked if key not in new]
    assert [key for key, _, _ in found.not_admitted] == out[:20]
    assert found.not_admitted_count == len(out)
    assert {why for _, number, why in found.not_admitted if number < least} <= {"MinNodes"}
    assert {why for _, number, why in found.not_admitted if number >= least} <= {"MaxPools"}


@pytest.mark.parametrize("threshold", [10_000, 0], ids=["few", "many"])
@given(changes=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([-1, 1, 2])), max_size=200))
@example(changes=[("a", 1), ("b", 1), ("b", -1), ("b", 1)])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_ranking_follows_its_counts(
    changes: list[tuple[str, int]], threshold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ranking, "SORT_THRESHOLD", threshold)
    found, counts = KeyRanking(), dict.fromkeys("abcd", 0)
    for key, by in changes:
        change = max(by, -counts[key])
        counts[key] += change
        found.add(key, change)
    expected = sorted(((key, n) for key, n in counts.items() if n), key=lambda item: (-item[1], item[0]))
    assert list(found.walk()) == expected
    assert list(found.walk(without={"a", "b"})) == [item for item in expected if item[0] not in "ab"]
    assert len(found) == len(expected)


@given(st.lists(st.booleans(), max_size=400))
def test_a_key_added_and_removed_many_times_does_not_grow_the_heap(steps: list[bool]) -> None:
    found = KeyRanking()
    for number, comes in enumerate(steps * 3):
        found.add("stays" if number == 0 else f"k{number % 3}", 1)
        if comes:
            found.add("stays" if number == 0 else f"k{number % 3}", -1)
    assert sum(len(rank._heap) for rank in found._ranks.values()) <= 2 * len(found) + 100 * len(found._ranks)  # noqa: SLF001


# The plan.


def test_pools_are_made_for_what_nodes_offer_and_then_nothing_differs() -> None:
    by = generator("g")
    entry = generator_entry(by, view(speech("zh", "en")))
    plan = plan_for(entry)
    assert keys_of(plan) == {"zh-en", "en-zh"}
    again = plan_for(entry, generated_pool(by, "zh-en"), generated_pool(by, "en-zh"))
    assert (again.create, again.correct, again.remove, again.recheck_at) == ({}, {}, (), None)
    assert (again.status.pools, again.status.not_admitted_count, again.status.ready) == (2, 0, "True")
    entry.generator = replace(by, status=again.status)
    assert plan_for(entry, generated_pool(by, "zh-en"), generated_pool(by, "en-zh")).status == again.status


def test_those_not_admitted_are_reported() -> None:
    by = generator("g", maxPools=1)
    status = plan_for(generator_entry(by, view(speech("zh", "en", "ja")))).status
    assert (status.pools, status.not_admitted_count) == (1, 5)
    assert [item.key for item in status.not_admitted] == ["en-zh", "ja-en", "ja-zh", "zh-en", "zh-ja"]
    assert {(item.nodes, item.reason) for item in status.not_admitted} == {(1, "MaxPools")}


def test_an_empty_pool_stays_for_the_grace_time() -> None:
    by = generator("g", graceSeconds=600)
    entry = generator_entry(by, view(speech("zh", "en")))
    pools = generated_pool(by, "zh-en"), generated_pool(by, "en-zh")
    entry.update("n0", None)
    assert plan_for(entry, *pools, moment=100.0).recheck_at == 700.0
    waiting = plan_for(entry, *pools, moment=699.9)
    assert (waiting.remove, waiting.create, waiting.recheck_at) == ((), {}, 700.0)
    ended = plan_for(entry, *pools, moment=700.0)
    assert {item.meta.name for item in ended.remove} == {item.meta.name for item in pools}
    assert ended.status.pools == 0


def test_the_grace_restarts_after_a_node_returned() -> None:
    by = generator("g", graceSeconds=600)
    seen = view(speech("zh", "en"))
    entry = generator_entry(by, seen)
    pools = generated_pool(by, "zh-en"), generated_pool(by, "en-zh")
    entry.update("n0", None)
    plan_for(entry, *pools, moment=0.0)
    entry.update("n0", seen)
    assert plan_for(entry, *pools, moment=500.0).recheck_at is None
    entry.update("n0", None)
    assert plan_for(entry, *pools, moment=599.0).recheck_at == 1199.0


def test_an_admitted_pool_is_not_replaced_by_a_key_with_more_nodes() -> None:
    by = generator("g", maxPools=1, minNodes=2)
    ja = view(speech("en", "ja"))
    entry = generator_entry(by, *[view(speech("zh", "en"))] * 5, ja)
    plan = plan_for(entry, generated_pool(by, "en-ja"))
    assert (plan.create, plan.remove) == ({}, ())
    assert {item.key for item in plan.status.not_admitted} == {"en-zh", "zh-en", "ja-en"}


def test_a_hand_made_pool_of_the_same_name_is_never_touched() -> None:
    by = generator("g", graceSeconds=0)
    entry = generator_entry(by, view(speech("zh", "en")))
    by_hand = replace(generated_pool(by, "zh-en"), spec=pool("x").spec, owner=None)
    plan = plan_for(entry, by_hand)
    assert keys_of(plan) == {"en-zh"}
    assert plan.correct == {}
    entry.update("n0", None)
    assert plan_for(entry, by_hand, moment=1e6).remove == ()


def test_pools_of_another_generator_are_never_touched() -> None:
    by, other = generator("g"), generator("h")
    plan = plan_for(generator_entry(by), generated_pool(other, "zh-en"), pool("mine"))
    assert (plan.create, plan.correct, plan.remove) == ({}, {}, ())


@pytest.mark.parametrize("edit", [{"min_members": 7}, {"generated": None}, {"exclude_nodes": ("n0",)}])
def test_a_generated_pool_edited_by_hand_is_corrected(edit: dict[str, Any]) -> None:
    by = generator("g")
    good = generated_pool(by, "zh-en")
    edited = replace(good, spec=good.spec.model_copy(update=edit))
    plan = plan_for(generator_entry(by, view(speech("zh", "en"))), edited, generated_pool(by, "en-zh"))
    assert plan.correct == {good.meta.name: good.spec}
    assert (plan.create, plan.remove) == ({}, ())


def test_a_changed_template_reaches_every_pool() -> None:
    old, new = generator("g"), generator("g", template={"spec": {"minMembers": 4}})
    plan = plan_for(
        generator_entry(new, view(speech("zh", "en"))), generated_pool(old, "zh-en"), generated_pool(old, "en-zh")
    )
    assert [spec.min_members for spec in plan.correct.values()] == [4, 4]


def test_nodes_are_counted_once_for_each_key_and_no_longer_after_deletion() -> None:
    entry = generator_entry(generator("g"))
    first, second = view(speech("zh", "en")), view(speech("zh", "en", "ja"))
    assert entry.update("a", first)
    assert entry.update("b", second)
    assert not entry.update("b", second)
    assert entry.node_counts["zh-en"] == 2
    assert entry.update("b", NodeView(node("b", speech("zh", "en")), Liveness.OFFLINE))
    assert dict(entry.node_counts) == {"zh-en": 1, "en-zh": 1}
    assert entry.update("a", None)
    assert dict(entry.node_counts) == {}
