"""Plans of generators with foreign pools, hostile input and changes of their own rule (D5, D6, D11, F3)."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support.builders import generator, pool, report, requires, service, speech, view
from tests.support.generators import generated_pool, generator_entry, plan_for

from hotpool.api.pool import PoolStatus
from hotpool.core.generators.admission import admit, pool_name
from hotpool.core.generators.key_ranking import KeyRanking
from hotpool.core.model import Generator, Pool
from hotpool.core.planning import generator_plan as plan_generator
from hotpool.core.planning.generator_plan import GeneratorPlan

ZH_EN = view(speech("zh", "en"))
TIERS = {"attributeValues": {"type": "llm", "key": "tier"}}


def conditions(plan: GeneratorPlan) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in plan.status.conditions}


def message(plan: GeneratorPlan, type_: str) -> str:
    return next(c.message for c in plan.status.conditions if c.type == type_)


def untouched(plan: GeneratorPlan) -> bool:
    return (plan.create, plan.correct, plan.remove) == ({}, {}, ())


def filled(of: Pool, members: int = 1) -> Pool:
    return replace(of, status=PoolStatus(members=members))


# Generators that do nothing.


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        (generator("g", paused=True), "Paused"),
        (generator("g", rule={"hash": {"count": 4}, "languageSets": {}}), "InvalidSpec"),
        (generator("g", rule={"languageSets": {"minLanguages": 4, "maxLanguages": 2}}), "InvalidSpec"),
        (generator("g", rule={"languageSets": {"maxLanguages": 16}}), "InvalidSpec"),
        (generator("g", rule={}), "InvalidSpec"),
        (generator("g", rule={"hash": {"count": "many"}}), "InvalidSpec"),
    ],
)
def test_an_idle_generator_has_a_condition_and_keeps_its_pools(by: Generator, reason: str) -> None:
    own = replace(pool("g-x-12345678"), owner=by.meta.uid)
    plan = plan_for(generator_entry(by, ZH_EN), own, moment=1e6)
    assert untouched(plan)
    assert conditions(plan) == {"Ready": ("False", reason)}
    assert plan.status.ready == "False"
    again = generator_entry(replace(by, status=plan.status), ZH_EN)
    assert plan_for(again, own).status == plan.status


def test_a_paused_generator_continues_when_the_pause_ends() -> None:
    by = generator("g")
    entry = generator_entry(by, ZH_EN)
    entry.generator = replace(by, paused=True)
    entry.update("n0", None)
    assert untouched(plan_for(entry, generated_pool(by, "zh-en"), moment=1e6))
    entry.generator = by
    assert untouched(plan_for(entry, generated_pool(by, "zh-en"), moment=2e6))
    assert plan_for(entry, generated_pool(by, "zh-en"), moment=2e6 + 600).remove


def test_a_paused_pool_of_a_generator_is_neither_corrected_nor_removed_and_keeps_its_place() -> None:
    by = generator("g", graceSeconds=0, maxPools=1)
    spec = generated_pool(by, "zh-en").spec.model_copy(update={"min_members": 9})
    paused = replace(generated_pool(by, "zh-en"), spec=spec, paused=True)
    assert untouched(plan_for(generator_entry(by, ZH_EN), paused))
    assert untouched(plan_for(generator_entry(by), paused, moment=1e6))
    running = plan_for(generator_entry(by), replace(paused, paused=False), moment=1e6)
    assert [item.meta.name for item in running.remove] == [paused.meta.name]


# What is not admitted.


def test_keys_not_admitted_set_a_condition_that_is_removed_later() -> None:
    by = generator("g", maxPools=1)
    entry = generator_entry(by, ZH_EN)
    plan = plan_for(entry)
    assert conditions(plan) == {"Ready": ("True", "Generated"), "NotAdmitted": ("True", "MaxPools")}
    assert message(plan, "NotAdmitted") == "1 without a pool; first zh-en: 1 nodes, MaxPools"
    few = plan_for(generator_entry(generator("g", minNodes=2), ZH_EN))
    assert conditions(few)["NotAdmitted"] == ("True", "MinNodes")
    assert few.status.not_admitted_count == 2
    assert conditions(plan_for(generator_entry(generator("g"), ZH_EN))) == {"Ready": ("True", "Generated")}


def test_sets_that_are_too_large_are_reported_in_their_rank() -> None:
    by = generator("g", rule={"languageSets": {"maxLanguages": 2}}, minNodes=2)
    seen = [view(speech(*codes)) for codes in ("abcd", "abcd", "ab", "ac")]
    plan = plan_for(generator_entry(by, *seen))
    assert {spec.generated.key for spec in plan.create.values() if spec.generated} == {"a+b", "a+c"}
    assert [(item.key, item.nodes, item.reason) for item in plan.status.not_admitted] == [
        ("a+b+c+d", 2, "MaxLanguages")
    ]
    assert plan.status.not_admitted_count == 1


def test_keys_of_any_length_fit_into_the_status() -> None:
    codes = [f"language{number:03}" for number in range(40)]
    plan = plan_for(generator_entry(generator("g", rule={"languageSets": {}}), view(speech(*codes))))
    (left_out,) = plan.status.not_admitted
    assert len(left_out.key) == 253
    assert left_out.key.startswith("language000+language001+")
    assert conditions(plan)["NotAdmitted"] == ("True", "MaxLanguages")


def test_a_generator_with_very_many_keys_makes_max_pools_and_reports_the_rest() -> None:
    by = generator("g", maxPools=300)
    greedy = [view(speech(*(f"l{part}x{number:03}" for number in range(101)))) for part in range(2)]
    plan = plan_for(generator_entry(by, *greedy, ZH_EN, ZH_EN))
    assert 0 < len(plan.create) < 300, "in turns with other generators"
    assert pool_name("g", "zh-en") in plan.create
    assert (plan.status.pools, plan.status.not_admitted_count) == (300, 20_002 - 300)
    assert len(plan.status.not_admitted) == 20
    assert conditions(plan)["TooManyKeys"] == ("True", "TooManyKeys")
    text = message(plan, "TooManyKeys")
    assert text.endswith("n0, n1")
    assert len(plan.status.model_dump_json()) < 6_000


def test_a_truncated_search_sets_a_condition() -> None:
    codes = [f"l{number:02}" for number in range(60)]
    blocked = [f"{a}-{b}" for a in codes for b in codes if a != b and codes.index(a) // 3 == codes.index(b) // 3]
    spoken = [service(type_, type_, languages=codes) for type_ in ("asr", "tts")]
    rule = {"kind": "any_to_any", "languages": codes, "blocked": blocked}
    seen = view(report(*spoken, service("m", "nmt", rules=[rule])))
    plan = plan_for(generator_entry(generator("g", rule={"languageSets": {}}), seen))
    assert conditions(plan)["LanguageSetsTruncated"] == ("True", "TooManySets")
    assert message(plan, "LanguageSetsTruncated").endswith("n0")


# Foreign pools.


def test_a_hand_made_pool_with_the_same_name_is_not_adopted_and_sets_a_condition() -> None:
    by = generator("g")
    foreign = replace(generated_pool(by, "zh-en"), owner=None)
    plan = plan_for(generator_entry(by, ZH_EN), foreign, moment=1e6)
    assert set(plan.create) == {pool_name("g", "en-zh")}
    assert (plan.correct, plan.remove) == ({}, ())
    assert conditions(plan)["NameTaken"] == ("True", "NotOurs")
    assert foreign.meta.name in message(plan, "NameTaken")
    assert [(item.key, item.reason) for item in plan.status.not_admitted] == [("zh-en", "NameTaken")]
    assert untouched(plan_for(generator_entry(by), foreign, moment=1e6))


@pytest.mark.parametrize("edit", [{"generated": None}, {"generated": {"by": "h", "kind": "Hash", "key": "1"}}])
def test_an_owned_pool_with_a_foreign_key_is_removed(edit: dict[str, Any]) -> None:
    by = generator("g")
    odd = replace(pool("odd", **edit), owner=by.meta.uid)
    plan = plan_for(generator_entry(by, ZH_EN), odd, generated_pool(by, "zh-en"), generated_pool(by, "en-zh"))
    assert plan.remove == (odd,)
    assert (plan.create, plan.correct) == ({}, {})
    paused = replace(odd, paused=True)
    assert (
        plan_for(generator_entry(by, ZH_EN), paused, generated_pool(by, "zh-en"), generated_pool(by, "en-zh")).remove
        == ()
    )


def test_pools_that_name_another_generator_belong_to_their_owner() -> None:
    """A cycle made by hand: each pool names the other generator. Owners decide, names in specs do not."""
    g, h = generator("g"), generator("h")
    theirs = [generated_pool(g, "zh-en"), generated_pool(h, "zh-en")]
    crossed = [
        replace(item, spec=item.spec.model_copy(update={"generated": other.spec.generated}))
        for item, other in zip(theirs, reversed(theirs), strict=True)
    ]
    for by, own in ((g, theirs[0]), (h, theirs[1])):
        plan = plan_for(generator_entry(by, ZH_EN), *crossed)
        assert plan.correct == {own.meta.name: own.spec}
        assert set(plan.create) == {pool_name(by.meta.name, "en-zh")}
        assert plan.remove == ()


def test_two_generators_with_equal_templates_have_separate_pools() -> None:
    g, h = generator("g"), generator("h")
    every = [generated_pool(by, key) for by in (g, h) for key in ("zh-en", "en-zh")]
    assert len({item.meta.name for item in every}) == 4
    for by in (g, h):
        assert untouched(plan_for(generator_entry(by, ZH_EN), *every))
        gone = plan_for(generator_entry(generator(by.meta.name, graceSeconds=0)), *every, moment=1.0)
        assert {item.owner for item in gone.remove} == {by.meta.uid}


def test_of_two_keys_with_the_same_name_only_one_is_admitted() -> None:
    ranking = KeyRanking()
    for key, nodes in (("first", 3), ("second", 2), ("third", 1)):
        ranking.add(key, nodes)
    names = {"first": "g-x-00000000", "second": "g-x-00000000", "third": "g-third-1"}
    found = admit(ranking, (), generator("g").spec, names.__getitem__, lambda _: True)
    assert found.admitted == ("first", "third")
    assert found.not_admitted == (("second", 2, "NameTaken"),)
    kept = admit(ranking, ("second",), generator("g").spec, lambda _: "g-x-00000000", lambda _: True)
    assert kept.admitted == ("second",)


# Grace.


def test_a_pool_is_not_empty_while_it_has_members_without_the_key() -> None:
    """The brake retains silent nodes in their pools (D8): the generator must not remove such a pool."""
    by = generator("g", graceSeconds=0)
    entry = generator_entry(by)
    own = generated_pool(by, "zh-en")
    assert untouched(plan_for(entry, filled(own), moment=10.0))
    assert plan_for(entry, filled(own, 0), moment=20.0).remove


def test_pools_of_a_former_rule_stay_unchanged_for_the_grace_and_are_removed() -> None:
    before, after = generator("g"), generator("g", rule=TIERS)
    tiers = service("q", "llm", attributes=[{"key": "tier", "values": ["gold"]}])
    entry = generator_entry(after, view(report(*speech("zh", "en")["services"], tiers)))
    old = [filled(generated_pool(before, key)) for key in ("zh-en", "en-zh")]
    plan = plan_for(entry, *old, moment=0.0)
    assert {spec.generated.key for spec in plan.create.values() if spec.generated} == {"gold"}
    assert (plan.correct, plan.remove, plan.recheck_at) == ({}, (), 600.0)
    assert plan.status.pools == 3
    ended = plan_for(entry, *old, generated_pool(after, "gold"), moment=600.0)
    assert {item.meta.name for item in ended.remove} == {item.meta.name for item in old}
    assert (ended.create, ended.correct, ended.status.pools) == ({}, {}, 1)


@pytest.mark.parametrize(
    ("before", "after", "kept", "removed"),
    [
        ({"hash": {"count": 4}}, {"hash": {"count": 2}}, ["0", "1"], ["2", "3"]),
        ({"languagePairs": {"manyToOne": True}}, {"languagePairs": {}}, ["zh-en"], ["*-en"]),
        ({"languageSets": {}}, {"languageSets": {"maxLanguages": 2}}, ["en+zh"], ["a+b+c"]),
    ],
)
def test_keys_that_a_changed_rule_no_longer_makes_are_removed_after_the_grace(
    before: dict[str, Any], after: dict[str, Any], kept: list[str], removed: list[str]
) -> None:
    old, new = generator("g", rule=before), generator("g", rule=after)
    pools = [filled(generated_pool(old, key)) for key in (*kept, *removed)]
    entry = generator_entry(new)
    plan = plan_for(entry, *pools)
    assert {*plan.correct} <= {pool_name("g", key) for key in kept}
    assert plan.recheck_at == 600.0
    ended = plan_for(entry, *pools, moment=600.0)
    assert {item.meta.name for item in ended.remove} == {pool_name("g", key) for key in removed}


def test_a_key_of_both_rules_is_corrected_at_once() -> None:
    old, new = generator("g", rule={"hash": {"count": 4}}), generator("g", rule={"hash": {"count": 4, "seed": "x"}})
    pools = [filled(generated_pool(old, key)) for key in "0123"]
    plan = plan_for(generator_entry(new), *pools)
    assert {spec.requires.hash.seed for spec in plan.correct.values() if spec.requires.hash} == {"x"}
    assert len(plan.correct) == 4


def test_the_key_of_an_owned_pool_is_known_after_a_user_removed_it_from_the_spec() -> None:
    by = generator("g")
    entry = generator_entry(by, ZH_EN)
    good = generated_pool(by, "zh-en")
    plan_for(entry, good)
    entry.update("n0", None)
    bare = replace(good, spec=good.spec.model_copy(update={"generated": None}))
    plan = plan_for(entry, bare, moment=10.0)
    assert plan.correct == {good.meta.name: good.spec}
    assert plan.remove == ()


# Contradictions, dry run, size.


@pytest.mark.parametrize(
    "wanted",
    [
        {"nodeSelector": {"matchExpressions": [{"key": "a", "operator": o} for o in ("Exists", "DoesNotExist")]}},
        {"types": [{"type": "asr", "attributes": [{"key": "device", "allOf": ["cpu", "gpu"]}]}]},
        {"languagePairs": {"allOf": ["zh-zh"]}},
        {"hash": {"count": 2, "index": 7}},
    ],
)
def test_a_template_that_no_node_can_meet_makes_no_pools(wanted: dict[str, Any]) -> None:
    by = generator("g", template={"spec": {"requires": wanted}})
    plan = plan_for(generator_entry(by, ZH_EN, ZH_EN))
    assert untouched(plan)
    assert (plan.status.pools, plan.status.not_admitted_count) == (0, 0)


def test_a_template_in_mode_dry_run_makes_pools_in_mode_dry_run() -> None:
    by = generator("g", template={"spec": {"mode": "DryRun", "requires": requires("asr")}})
    entry = generator_entry(by, ZH_EN)
    plan = plan_for(entry)
    assert {spec.mode for spec in plan.create.values()} == {"DryRun"}
    assert untouched(plan_for(entry, generated_pool(by, "zh-en"), generated_pool(by, "en-zh"), moment=1e6))


def test_one_plan_makes_removes_and_compares_a_bounded_number_of_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_generator, "MAX_COMPARED_POOLS", 20)
    monkeypatch.setattr(plan_generator, "MAX_WRITES", 10)
    by = generator("g", graceSeconds=0)
    codes = "abcdef"
    entry = generator_entry(by, view(speech(*codes)))
    assert len(plan_for(entry).create) == 10
    keys = [f"{a}-{b}" for a in codes for b in codes if a != b]
    old = generator("g", template={"spec": {"minMembers": 5}})
    every = [generated_pool(old, key) for key in keys]
    own = {item.meta.name: item for item in every}
    first = plan_generator.plan_generator(entry, own, own, 1.0, "now")
    assert len(first.correct) == 10
    assert first.recheck_at == 1.0
    assert len(plan_for(generator_entry(by), *every, moment=1.0).remove) == 10
    equal = [generated_pool(by, key) for key in keys]
    compared = plan_generator.plan_generator(
        generator_entry(by, view(speech(*codes))), {p.meta.name: p for p in equal}, own, 1, ""
    )
    assert (compared.correct, compared.recheck_at) == ({}, 1)


def test_specs_are_built_and_compared_once_and_again_only_after_a_change() -> None:
    by = generator("g")
    entry = generator_entry(by, ZH_EN)
    pools = [generated_pool(by, "zh-en"), generated_pool(by, "en-zh")]
    plan_for(entry, *pools)
    assert all(entry.is_known_equal(item) for item in pools)
    assert entry.desired_spec("zh-en") is entry.desired_spec("zh-en")
    edited = replace(pools[0], spec=pools[0].spec.model_copy(update={"min_members": 3}))
    assert set(plan_for(entry, edited, pools[1]).correct) == {edited.meta.name}
    assert untouched(plan_for(entry, *pools))


def test_cached_names_and_specs_of_removed_keys_are_deleted() -> None:
    by = generator("g", rule=TIERS, maxPools=10, graceSeconds=0)
    entry = generator_entry(by)
    for turn in range(130):
        values = [f"v{turn}-{number}" for number in range(10)]
        tiers = service("q", "llm", attributes=[{"key": "tier", "values": values}])
        entry.update("n0", view(report(tiers)))
        assert len(plan_for(entry, moment=float(turn)).create) == 10
    assert len(entry._names) < 1_100  # noqa: SLF001 - nothing else shows that memory is freed.
    assert len(entry._specs) < 1_100  # noqa: SLF001
