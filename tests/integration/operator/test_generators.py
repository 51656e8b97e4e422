"""Generators from event to write: every rule, foreign pools, changes of the rule, large fleets (D5, D11, F3).

Requirements D8.
"""

from typing import Any

import pytest
from tests.support.builders import H, generator_object, node_object, pool_object, report, requires, service, speech
from tests.support.llm_fleet import publish
from tests.support.simulated_fleet import FakeApi, now, operator, refusing, simulated, until

from hotpool.common.hashing import slot
from hotpool.core.generators.admission import pool_name
from hotpool.core.model import Key, Kind

TIERS = {"attributeValues": {"type": "llm", "key": "tier"}}


def named(key: str, by: str = "g") -> str:
    return pool_name(by, key)


def llm(*tiers: str, **more: Any) -> dict[str, Any]:
    return report(service("q", "llm", attributes=[{"key": "tier", "values": list(tiers)}]), **more)


def pools(api: FakeApi) -> set[str]:
    return set(api.objects[Kind.POOL])


def status(api: FakeApi, name: str = "g") -> dict[str, Any]:
    return dict(api.objects[Kind.GENERATOR][name].get("status") or {})


# Every rule.


def _set_fleet() -> dict[str, Any]:
    return {"n0": speech("a", "b"), "n1": speech("a", "b", "c"), "n2": speech("x", "y")}


def _value_fleet() -> dict[str, Any]:
    return {"n0": llm("gold", "ü \u202e"), "n1": llm("gold"), "n2": report(service("a", "asr"))}


def _hash_fleet() -> dict[str, Any]:
    return {f"n{number}": llm("x") for number in range(12)}


@pytest.mark.parametrize(
    ("rule", "fleet", "expected"),
    [
        (
            {"languageSets": {}},
            _set_fleet(),
            {"a+b": {"n0", "n1"}, "a+b+c": {"n1"}, "x+y": {"n2"}},
        ),
        (TIERS, _value_fleet(), {"gold": {"n0", "n1"}, "ü \u202e": {"n0"}}),
        (
            {"hash": {"count": 3, "seed": "s"}},
            _hash_fleet(),
            {
                str(part): {name for name in _hash_fleet() if slot(name, "s", 3) == part}
                for part in {slot(name, "s", 3) for name in _hash_fleet()}
            },
        ),
    ],
    ids=["languageSets", "attributeValues", "hash"],
)
def test_a_rule_creates_pools_with_members_and_then_writes_nothing(
    rule: dict[str, Any], fleet: dict[str, Any], expected: dict[str, set[str]]
) -> None:
    @simulated
    async def run() -> None:
        api = FakeApi()
        api.put(generator_object("g", rule=rule))
        for name, content in fleet.items():
            api.put(node_object(name, content))
        async with operator(api) as operated:
            await operated.beating(5)
            assert {named(key): nodes for key, nodes in expected.items()} == {
                name: set(api.members(name)) for name in pools(api)
            }
            before = len(api.writes)
            await operated.beating(60)
            assert api.writes[before:] == []

    run()


@simulated
async def test_a_node_that_gains_languages_joins_the_smaller_set_and_one_that_loses_them_leaves_at_once() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule={"languageSets": {}}))
    api.put(node_object("small", speech("a", "b")))
    api.put(node_object("other", speech("a", "c")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        publish(api, "other", speech("a", "b", "c", sequence=2))
        await until(lambda: set(api.members(named("a+b"))) == {"small", "other"})
        publish(api, "other", speech("a", sequence=3))
        await until(lambda: set(api.members(named("a+b"))) == {"small"})


@simulated
async def test_pools_of_a_dry_run_template_have_counts_but_no_members_and_stay() -> None:
    api = FakeApi()
    template = {"spec": {"mode": "DryRun"}}
    api.put(generator_object("g", rule=TIERS, template=template, graceSeconds=5))
    api.put(node_object("n0", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(60)
        assert pools(api) == {named("gold")}
        assert api.objects[Kind.SLICE] == {}
        publish(api, "n0", llm("silver", sequence=2))
        await fleet.beating(60)
        assert pools(api) == {named("silver")}


# Foreign pools.


@simulated
async def test_a_hand_made_pool_with_a_generated_name_is_never_changed_and_blocks_the_key_until_it_is_deleted() -> None:
    api = FakeApi()
    api.put(pool_object(named("gold"), requires=requires("asr"), minMembers=7))
    api.put(generator_object("g", rule=TIERS, graceSeconds=0))
    api.put(node_object("n0", llm("gold", "silver")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        assert pools(api) == {named("gold"), named("silver")}
        assert api.objects[Kind.POOL][named("gold")]["spec"]["minMembers"] == 7
        assert api.conditions(Kind.GENERATOR, "g")["NameTaken"] == ("True", "NotOurs")
        assert status(api)["notAdmitted"] == [{"key": "gold", "nodes": 1, "reason": "NameTaken"}]
        api.delete(Kind.POOL, named("gold"))
        await until(lambda: api.members(named("gold")) == {"n0": "Ready"})
        await fleet.beating(5)
        assert "NameTaken" not in api.conditions(Kind.GENERATOR, "g")


@simulated
async def test_the_deletion_of_a_generator_deletes_its_own_pools_and_no_others() -> None:
    api = FakeApi()
    for name in ("g", "h"):
        api.put(generator_object(name, rule=TIERS))
    by_hand = {"by": "g", "kind": "AttributeValue", "key": "gold"}
    api.put(pool_object("mine", requires=requires("llm"), generated=by_hand))
    api.put(node_object("n0", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        assert pools(api) == {"mine", named("gold"), named("gold", "h")}
        api.delete(Kind.GENERATOR, "g")
        await fleet.beating(5)
        assert pools(api) == {"mine", named("gold", "h")}
        assert api.members("mine") == {"n0": "Ready"}
        assert Key(Kind.GENERATOR, "g") not in fleet.keys


@simulated
async def test_a_generator_recreated_under_its_name_waits_for_the_deletion_of_the_former_pools() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule=TIERS))
    api.put(node_object("n0", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        former = api.objects[Kind.POOL].pop(named("gold"))
        api.delete(Kind.GENERATOR, "g")
        api.objects[Kind.POOL][named("gold")] = former  # not garbage-collected yet
        recreated = api.put(generator_object("g", rule=TIERS))
        await fleet.beating(5)
        assert api.conditions(Kind.GENERATOR, "g")["NameTaken"] == ("True", "NotOurs")
        api.delete(Kind.POOL, named("gold"))
        await until(lambda: api.members(named("gold")) == {"n0": "Ready"})
        owners = api.objects[Kind.POOL][named("gold")]["metadata"]["ownerReferences"]
        assert [owner["uid"] for owner in owners] == [recreated["metadata"]["uid"]]


@simulated
async def test_two_generators_restore_pools_that_name_each_other_and_then_write_nothing() -> None:
    api = FakeApi()
    for name in ("g", "h"):
        api.put(generator_object(name, rule=TIERS))
    api.put(node_object("n0", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        for mine, other in (("g", "h"), ("h", "g")):
            api.edit(Kind.POOL, named("gold", mine), {"spec": {"generated": {"by": other}}})
        await fleet.beating(5)
        for name in ("g", "h"):
            assert api.objects[Kind.POOL][named("gold", name)]["spec"]["generated"]["by"] == name
        before = len(api.writes)
        await fleet.beating(60)
        assert api.writes[before:] == []


# Changes of the generator.


@simulated
async def test_a_changed_rule_keeps_the_former_pools_for_the_grace_time_and_creates_new_ones_at_once() -> None:
    api = FakeApi()
    api.put(generator_object("g", graceSeconds=60))
    tiers = service("q", "llm", attributes=[{"key": "tier", "values": ["gold"]}])
    api.put(node_object("n0", report(*speech("zh", "en")["services"], tiers)))
    async with operator(api) as fleet:
        await fleet.beating(5)
        former = {named("zh-en"), named("en-zh")}
        assert pools(api) == former
        api.put(generator_object("g", rule=TIERS, graceSeconds=60))
        began = now()
        await until(lambda: api.members(named("gold")) == {"n0": "Ready"})
        await fleet.beating(50)
        assert {name for name in former if api.members(name) == {"n0": "Ready"}} == former
        await until(lambda: pools(api) == {named("gold")})
        assert 60 <= now() - began < 63
        await fleet.beating(3)
        assert status(api)["pools"] == 1


@simulated
async def test_an_edit_of_the_generator_does_not_restart_the_grace_time() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule=TIERS, graceSeconds=60))
    api.put(node_object("n0", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.delete(Kind.NODE, "n0")
        began = now()
        await fleet.beating(40)
        api.edit(Kind.GENERATOR, "g", {"spec": {"minNodes": 2}})
        await until(lambda: pools(api) == set())
        assert 60 <= now() - began < 63
        assert api.members(named("gold")) == {}


@simulated
async def test_a_paused_generator_changes_nothing_and_has_a_condition_until_the_pause_ends() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule=TIERS, graceSeconds=5))
    api.put(node_object("n0", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.edit(Kind.GENERATOR, "g", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        publish(api, "n0", llm("silver", sequence=2))
        api.edit(Kind.POOL, named("gold"), {"spec": {"minMembers": 9}})
        await fleet.beating(60)
        assert pools(api) == {named("gold")}
        assert api.objects[Kind.POOL][named("gold")]["spec"]["minMembers"] == 9
        assert api.conditions(Kind.GENERATOR, "g")["Ready"] == ("False", "Paused")
        api.edit(Kind.GENERATOR, "g", {"metadata": {"annotations": {"hotpool.dev/paused": None}}})
        await until(lambda: pools(api) == {named("silver")})
        await fleet.beating(3)
        assert api.conditions(Kind.GENERATOR, "g")["Ready"] == ("True", "Generated")


@simulated
async def test_an_invalid_spec_sets_a_condition_and_keeps_the_pools() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule=TIERS, graceSeconds=0))
    api.put(node_object("n0", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.put(generator_object("g", rule={"hash": {"count": "many"}}, graceSeconds=0))
        await fleet.beating(30)
        assert pools(api) == {named("gold")}
        assert api.conditions(Kind.GENERATOR, "g")["Ready"] == ("False", "InvalidSpec")
        api.put(generator_object("g", rule=TIERS, graceSeconds=0))
        await until(lambda: api.conditions(Kind.GENERATOR, "g")["Ready"] == ("True", "Generated"))


# Silence, large fleets.


@simulated
async def test_pools_whose_members_the_brake_retains_are_not_removed_as_empty() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule=TIERS, graceSeconds=0))
    for number in range(4):
        api.put(node_object(f"n{number}", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.put(node_object("alive", report(service("a", "asr"))))
        await fleet.beating(5 * H, "alive")
        assert set(api.members(named("gold")).values()) == {"Suspect"}
        assert pools(api) == {named("gold")}
        await fleet.beating(600, "alive")
        assert pools(api) == set()


@simulated
async def test_a_fleet_with_100000_pairs_gets_max_pools_and_delays_no_other_generator() -> None:
    api = FakeApi()
    api.put(generator_object("g", maxPools=30))
    api.put(generator_object("h", rule=TIERS))
    for part in range(10):
        api.put(node_object(f"n{part}", speech(*(f"l{part}x{number:03}" for number in range(101)))))
    api.put(node_object("plain", llm("gold")))
    async with operator(api) as fleet:
        await fleet.beating(1)
        assert api.members(named("gold", "h")) == {"plain": "Ready"}
        await until(lambda: status(api).get("pools") == 30)
        await fleet.beating(10)
        assert len(pools(api)) == 31
        assert status(api)["notAdmittedCount"] == 100_000 - 30
        assert len(status(api)["notAdmitted"]) == 20
        conditions = api.conditions(Kind.GENERATOR, "g")
        assert conditions["TooManyKeys"] == ("True", "TooManyKeys")
        assert conditions["NotAdmitted"] == ("True", "MaxPools")
        before = len(api.writes)
        await fleet.beating(60)
        assert api.writes[before:] == []


@simulated
async def test_refused_pools_are_retried_with_growing_back_off() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule=TIERS))
    api.put(node_object("n0", llm(*(f"v{number}" for number in range(50)))))
    api.fault = refusing(403, kind=Kind.POOL, verb="create")
    async with operator(api) as fleet:
        await fleet.beating(120)
        assert api.requests["create"] < 50 * 14
        api.fault = None
        assert await until(lambda: len(pools(api)) == 50) <= 30.1
