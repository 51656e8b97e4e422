"""Plans of generators that meet strangers, hostile input and changes of their own rule (D5, D6, D11, F3)."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support.builders import generator, pool, report, requires, service, speech, view
from tests.support.generators import made, offered, planned

from hotpool.api.pool import PoolStatus
from hotpool.core.generators.admission import NameAllocator, admit, pool_name
from hotpool.core.generators.key_ranking import KeyRanking
from hotpool.core.model import Generator, Pool
from hotpool.core.planning import generator_plan as plan_generator
from hotpool.core.planning.generator_plan import GeneratorPlan

ZH_EN = view(speech("zh", "en"))
TIERS = {"attributeValues": {"type": "llm", "key": "tier"}}


def said(plan: GeneratorPlan) -> dict[str, tuple[str, str]]:
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
def test_a_generator_that_does_nothing_says_so_and_leaves_its_pools(by: Generator, reason: str) -> None:
    own = replace(pool("g-x-12345678"), owner=by.meta.uid)
    plan = planned(offered(by, ZH_EN), own, moment=1e6)
    assert untouched(plan)
    assert said(plan) == {"Ready": ("False", reason)}
    assert plan.status.ready == "False"
    again = offered(replace(by, status=plan.status), ZH_EN)
    assert planned(again, own).status == plan.status


def test_a_paused_generator_goes_on_where_it_was_when_the_pause_ends() -> None:
    by = generator("g")
    subject = offered(by, ZH_EN)
    subject.generator = replace(by, paused=True)
    subject.update("n0", None)
    assert untouched(planned(subject, made(by, "zh-en"), moment=1e6))
    subject.generator = by
    assert untouched(planned(subject, made(by, "zh-en"), moment=2e6))
    assert planned(subject, made(by, "zh-en"), moment=2e6 + 600).remove


def test_a_paused_pool_of_a_generator_is_neither_put_right_nor_removed_and_keeps_its_place() -> None:
    by = generator("g", graceSeconds=0, maxPools=1)
    spec = made(by, "zh-en").spec.model_copy(update={"min_members": 9})
    paused = replace(made(by, "zh-en"), spec=spec, paused=True)
    assert untouched(planned(offered(by, ZH_EN), paused))
    assert untouched(planned(offered(by), paused, moment=1e6))
    running = planned(offered(by), replace(paused, paused=False), moment=1e6)
    assert [item.meta.name for item in running.remove] == [paused.meta.name]


# What is not admitted.


def test_what_is_not_admitted_is_a_condition_that_goes_again() -> None:
    by = generator("g", maxPools=1)
    subject = offered(by, ZH_EN)
    plan = planned(subject)
    assert said(plan) == {"Ready": ("True", "Generated"), "NotAdmitted": ("True", "MaxPools")}
    assert message(plan, "NotAdmitted") == "1 without a pool; first zh-en: 1 nodes, MaxPools"
    few = planned(offered(generator("g", minNodes=2), ZH_EN))
    assert said(few)["NotAdmitted"] == ("True", "MinNodes")
    assert few.status.not_admitted_count == 2
    assert said(planned(offered(generator("g"), ZH_EN))) == {"Ready": ("True", "Generated")}


def test_sets_that_are_too_large_are_reported_in_their_rank() -> None:
    by = generator("g", rule={"languageSets": {"maxLanguages": 2}}, minNodes=2)
    seen = [view(speech(*codes)) for codes in ("abcd", "abcd", "ab", "ac")]
    plan = planned(offered(by, *seen))
    assert {spec.generated.key for spec in plan.create.values() if spec.generated} == {"a+b", "a+c"}
    assert [(item.key, item.nodes, item.reason) for item in plan.status.not_admitted] == [
        ("a+b+c+d", 2, "MaxLanguages")
    ]
    assert plan.status.not_admitted_count == 1


def test_keys_of_any_length_fit_into_the_status() -> None:
    codes = [f"language{number:03}" for number in range(40)]
    plan = planned(offered(generator("g", rule={"languageSets": {}}), view(speech(*codes))))
    (left_out,) = plan.status.not_admitted
    assert len(left_out.key) == 253
    assert left_out.key.startswith("language000+language001+")
    assert said(plan)["NotAdmitted"] == ("True", "MaxLanguages")


def test_a_generator_that_would_make_very_many_pools_makes_max_pools_and_says_the_rest() -> None:
    by = generator("g", maxPools=300)
    boasters = [view(speech(*(f"l{part}x{number:03}" for number in range(101)))) for part in range(2)]
    plan = planned(offered(by, *boasters, ZH_EN, ZH_EN))
    assert 0 < len(plan.create) < 300, "in turns with others"
    assert pool_name("g", "zh-en") in plan.create
    assert (plan.status.pools, plan.status.not_admitted_count) == (300, 20_002 - 300)
    assert len(plan.status.not_admitted) == 20
    assert said(plan)["TooManyKeys"] == ("True", "TooManyKeys")
    text = message(plan, "TooManyKeys")
    assert text.endswith("n0, n1")
    assert len(plan.status.model_dump_json()) < 6_000


def test_a_search_that_was_cut_is_said() -> None:
    codes = [f"l{number:02}" for number in range(60)]
    blocked = [f"{a}-{b}" for a in codes for b in codes if a != b and codes.index(a) // 3 == codes.index(b) // 3]
    heard = [service(type_, type_, languages=codes) for type_ in ("asr", "tts")]
    rule = {"kind": "any_to_any", "languages": codes, "blocked": blocked}
    seen = view(report(*heard, service("m", "nmt", rules=[rule])))
    plan = planned(offered(generator("g", rule={"languageSets": {}}), seen))
    assert said(plan)["LanguageSetsTruncated"] == ("True", "TooManySets")
    assert message(plan, "LanguageSetsTruncated").endswith("n0")


# Strangers.


def test_a_hand_made_pool_with_the_very_name_is_not_taken_over_and_it_is_said() -> None:
    by = generator("g")
    strange = replace(made(by, "zh-en"), owner=None)
    plan = planned(offered(by, ZH_EN), strange, moment=1e6)
    assert set(plan.create) == {pool_name("g", "en-zh")}
    assert (plan.correct, plan.remove) == ({}, ())
    assert said(plan)["NameTaken"] == ("True", "NotOurs")
    assert strange.meta.name in message(plan, "NameTaken")
    assert [(item.key, item.reason) for item in plan.status.not_admitted] == [("zh-en", "NameTaken")]
    assert untouched(planned(offered(by), strange, moment=1e6))


@pytest.mark.parametrize("edit", [{"generated": None}, {"generated": {"by": "h", "kind": "Hash", "key": "1"}}])
def test_a_pool_of_ours_whose_key_is_not_ours_is_removed(edit: dict[str, Any]) -> None:
    by = generator("g")
    odd = replace(pool("odd", **edit), owner=by.meta.uid)
    plan = planned(offered(by, ZH_EN), odd, made(by, "zh-en"), made(by, "en-zh"))
    assert plan.remove == (odd,)
    assert (plan.create, plan.correct) == ({}, {})
    paused = replace(odd, paused=True)
    assert planned(offered(by, ZH_EN), paused, made(by, "zh-en"), made(by, "en-zh")).remove == ()


def test_pools_that_name_another_generator_as_their_maker_are_whose_owner_says_so() -> None:
    """A cycle by hand: each pool names the other generator. Owners decide, names in specs do not."""
    g, h = generator("g"), generator("h")
    theirs = [made(g, "zh-en"), made(h, "zh-en")]
    crossed = [
        replace(item, spec=item.spec.model_copy(update={"generated": other.spec.generated}))
        for item, other in zip(theirs, reversed(theirs), strict=True)
    ]
    for by, own in ((g, theirs[0]), (h, theirs[1])):
        plan = planned(offered(by, ZH_EN), *crossed)
        assert plan.correct == {own.meta.name: own.spec}
        assert set(plan.create) == {pool_name(by.meta.name, "en-zh")}
        assert plan.remove == ()


def test_two_generators_with_equal_templates_have_pools_of_their_own() -> None:
    g, h = generator("g"), generator("h")
    every = [made(by, key) for by in (g, h) for key in ("zh-en", "en-zh")]
    assert len({item.meta.name for item in every}) == 4
    for by in (g, h):
        assert untouched(planned(offered(by, ZH_EN), *every))
        gone = planned(offered(generator(by.meta.name, graceSeconds=0)), *every, moment=1.0)
        assert {item.owner for item in gone.remove} == {by.meta.uid}


def test_two_keys_that_would_have_one_name_do_not_get_it_both() -> None:
    ranking = KeyRanking()
    for key, nodes in (("first", 3), ("second", 2), ("third", 1)):
        ranking.add(key, nodes)
    names = NameAllocator(lambda key: "g-x-00000000" if key != "third" else "g-third-1", lambda _: True)
    found = admit(ranking, (), generator("g").spec, names)
    assert found.admitted == ("first", "third")
    assert found.not_admitted == (("second", 2, "NameTaken"),)
    names = NameAllocator(lambda _: "g-x-00000000", lambda _: True)
    assert names.claim("second")
    kept = admit(ranking, ("second",), generator("g").spec, names)
    assert kept.admitted == ("second",)


# Grace.


def test_a_pool_is_not_empty_while_it_has_members_that_offer_nothing_now() -> None:
    """The brake keeps silent nodes in their pools (D8): the generator must not remove these meanwhile."""
    by = generator("g", graceSeconds=0)
    subject = offered(by)
    own = made(by, "zh-en")
    assert untouched(planned(subject, filled(own), moment=10.0))
    assert planned(subject, filled(own, 0), moment=20.0).remove


def test_pools_of_a_former_rule_stay_as_they_are_for_the_grace_time_and_go() -> None:
    before, after = generator("g"), generator("g", rule=TIERS)
    tiers = service("q", "llm", attributes=[{"key": "tier", "values": ["gold"]}])
    subject = offered(after, view(report(*speech("zh", "en")["services"], tiers)))
    old = [filled(made(before, key)) for key in ("zh-en", "en-zh")]
    plan = planned(subject, *old, moment=0.0)
    assert {spec.generated.key for spec in plan.create.values() if spec.generated} == {"gold"}
    assert (plan.correct, plan.remove, plan.recheck_at) == ({}, (), 600.0)
    assert plan.status.pools == 3
    ended = planned(subject, *old, made(after, "gold"), moment=600.0)
    assert {item.meta.name for item in ended.remove} == {item.meta.name for item in old}
    assert (ended.create, ended.correct, ended.status.pools) == ({}, {}, 1)


@pytest.mark.parametrize(
    ("before", "after", "stays", "goes"),
    [
        ({"hash": {"count": 4}}, {"hash": {"count": 2}}, ["0", "1"], ["2", "3"]),
        ({"languagePairs": {"manyToOne": True}}, {"languagePairs": {}}, ["zh-en"], ["*-en"]),
        ({"languageSets": {}}, {"languageSets": {"maxLanguages": 2}}, ["en+zh"], ["a+b+c"]),
    ],
)
def test_keys_that_a_changed_rule_makes_no_more_go_after_the_grace_time(
    before: dict[str, Any], after: dict[str, Any], stays: list[str], goes: list[str]
) -> None:
    old, new = generator("g", rule=before), generator("g", rule=after)
    pools = [filled(made(old, key)) for key in (*stays, *goes)]
    subject = offered(new)
    plan = planned(subject, *pools)
    assert {*plan.correct} <= {pool_name("g", key) for key in stays}
    assert plan.recheck_at == 600.0
    ended = planned(subject, *pools, moment=600.0)
    assert {item.meta.name for item in ended.remove} == {pool_name("g", key) for key in goes}


def test_a_key_that_both_rules_make_is_put_right_at_once() -> None:
    old, new = generator("g", rule={"hash": {"count": 4}}), generator("g", rule={"hash": {"count": 4, "seed": "x"}})
    pools = [filled(made(old, key)) for key in "0123"]
    plan = planned(offered(new), *pools)
    assert {spec.requires.hash.seed for spec in plan.correct.values() if spec.requires.hash} == {"x"}
    assert len(plan.correct) == 4


def test_the_key_of_a_pool_of_ours_is_known_though_somebody_took_it_out_of_the_spec() -> None:
    by = generator("g")
    subject = offered(by, ZH_EN)
    good = made(by, "zh-en")
    planned(subject, good)
    subject.update("n0", None)
    bare = replace(good, spec=good.spec.model_copy(update={"generated": None}))
    plan = planned(subject, bare, moment=10.0)
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
    plan = planned(offered(by, ZH_EN, ZH_EN))
    assert untouched(plan)
    assert (plan.status.pools, plan.status.not_admitted_count) == (0, 0)


def test_a_template_in_mode_dry_run_makes_pools_in_mode_dry_run() -> None:
    by = generator("g", template={"spec": {"mode": "DryRun", "requires": requires("asr")}})
    subject = offered(by, ZH_EN)
    plan = planned(subject)
    assert {spec.mode for spec in plan.create.values()} == {"DryRun"}
    assert untouched(planned(subject, made(by, "zh-en"), made(by, "en-zh"), moment=1e6))


def test_one_plan_makes_removes_and_compares_a_bounded_number_of_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_generator, "MAX_COMPARED_POOLS", 20)
    monkeypatch.setattr(plan_generator, "MAX_WRITES", 10)
    by = generator("g", graceSeconds=0)
    codes = "abcdef"
    subject = offered(by, view(speech(*codes)))
    assert len(planned(subject).create) == 10
    keys = [f"{a}-{b}" for a in codes for b in codes if a != b]
    old = generator("g", template={"spec": {"minMembers": 5}})
    every = [made(old, key) for key in keys]
    own = {item.meta.name: item for item in every}
    first = plan_generator.plan_generator(subject, own, own, 1.0, "now")
    assert len(first.correct) == 10
    assert first.recheck_at == 1.0
    assert len(planned(offered(by), *every, moment=1.0).remove) == 10
    equal = [made(by, key) for key in keys]
    compared = plan_generator.plan_generator(
        offered(by, view(speech(*codes))), {p.meta.name: p for p in equal}, own, 1, ""
    )
    assert (compared.correct, compared.recheck_at) == ({}, 1)


def test_specs_are_made_and_compared_once_and_again_only_when_they_changed() -> None:
    by = generator("g")
    subject = offered(by, ZH_EN)
    pools = [made(by, "zh-en"), made(by, "en-zh")]
    planned(subject, *pools)
    assert all(subject.is_known_equal(item) for item in pools)
    assert subject.desired_spec("zh-en") is subject.desired_spec("zh-en")
    edited = replace(pools[0], spec=pools[0].spec.model_copy(update={"min_members": 3}))
    assert set(planned(subject, edited, pools[1]).correct) == {edited.meta.name}
    assert untouched(planned(subject, *pools))


def test_what_was_made_for_keys_that_are_gone_is_forgotten() -> None:
    by = generator("g", rule=TIERS, maxPools=10, graceSeconds=0)
    subject = offered(by)
    for turn in range(130):
        values = [f"v{turn}-{number}" for number in range(10)]
        tiers = service("q", "llm", attributes=[{"key": "tier", "values": values}])
        subject.update("n0", view(report(tiers)))
        assert len(planned(subject, moment=float(turn)).create) == 10
    assert len(subject._names) < 1_100  # noqa: SLF001 - nothing else shows that memory is given back.
    assert len(subject._specs) < 1_100  # noqa: SLF001
