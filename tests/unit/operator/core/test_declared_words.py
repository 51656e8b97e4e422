"""Words that a fleet declares, and the condition of a pool or generator that requires others (requirement D2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import generator, node, open_cache, pool, report, service, stopped, valid

from hotpool.core.conditions import unknown_requirement
from hotpool.core.declared_words import DeclaredWords, ServiceWords, service_words, undeclared_words
from hotpool.core.model import Key, Kind
from hotpool.core.planning.generator_plan import plan_generator
from hotpool.core.planning.pool_plan import plan_pool

if TYPE_CHECKING:
    from hotpool.core.cluster_cache import ClusterCache

TIERS = st.sets(st.sampled_from(["gold", "silver", "iron"]), max_size=3)


def tier(*values: str, key: str = "tier", id_: str = "a", type_: str = "asr") -> dict[str, Any]:
    return stopped(id_, type_, attributes=[{"key": key, "values": list(values)}])


def requiring(key: str = "tier", *values: str, type_: str = "asr") -> dict[str, Any]:
    return {"types": [{"type": type_, "attributes": [{"key": key, "anyOf": list(values) or ["gold"]}]}]}


def of_pool(cache: ClusterCache, name: str = "p") -> tuple[str, str] | None:
    matches = cache.matches
    status = plan_pool(cache.pools[name], {}, matches.known_types, 0.0, "now", declared=matches.declared.by_type).status
    return next(((c.reason, c.message) for c in status.conditions if c.type == "UnknownRequirement"), None)


def of_generator(cache: ClusterCache) -> tuple[str, str] | None:
    matches = cache.matches
    entry = cache.generators["g"]
    plan = plan_generator(entry, {}, (), 0.0, "now", declared=matches.declared.by_type, types=matches.known_types)
    return next(((c.reason, c.message) for c in plan.status.conditions if c.type == "UnknownRequirement"), None)


def test_a_key_and_a_value_that_no_service_declares_are_a_condition_of_the_pool() -> None:
    """Also a service that does not run declares them, so that a stop changes nothing."""
    cache = open_cache()
    cache.upsert(node("n", report(tier("gold"))), 0)
    cases = (
        (requiring(), None),
        (requiring("teir"), ("UnknownAttribute", "no asr service declares teir; similar: tier")),
        (requiring("price"), ("UnknownAttribute", "no asr service declares price; declared are tier")),
        (requiring("tier", "gold", "golden"), ("UnknownValue", "no asr service declares tier golden; similar: gold")),
        (requiring(type_="asrr"), ("UnknownType", "no node has a service of type asrr; similar: asr")),
    )
    for version, (requires, expected) in enumerate(cases, 1):
        cache.upsert(pool("p", version=version, requires=requires), 0)
        assert of_pool(cache) == expected, requires


def test_only_a_word_that_becomes_known_or_unknown_marks_the_pools_of_its_type() -> None:
    cache = open_cache()
    cache.upsert(pool("p", requires=requiring()), 0)
    cache.upsert(pool("q", requires=requiring(type_="tts")), 0)
    cache.upsert(node("n", report(tier("silver"), tier("x", id_="t", type_="tts"))), 0)
    cache.pools["p"].dirty.status = False
    assert of_pool(cache) == ("UnknownValue", "no asr service declares tier gold")
    both = report(tier("gold"), tier("x", id_="t", type_="tts"), sequence=2)
    dirty = cache.upsert(node("n", both, version=2), 0)
    assert {key.name for key in dirty if key.kind is Kind.POOL} == {"p"}
    assert cache.pools["p"].dirty.status
    assert of_pool(cache) is None
    dirty = cache.upsert(node("m", report(tier("gold"))), 0)
    again = cache.upsert(node("m", report(tier("gold"), sequence=2), version=2), 0)
    assert Key(Kind.POOL, "p") not in again
    cache.delete(Kind.NODE, "n", "uid-n")
    assert of_pool(cache) is None
    assert Key(Kind.POOL, "p") in cache.delete(Kind.NODE, "m", "uid-m")
    assert of_pool(cache) == ("UnknownType", "no node has a service of type asr")


def test_a_generator_names_type_and_key_that_no_service_declares() -> None:
    cache = open_cache()
    rule = {"attributeValues": {"type": "llm", "key": "modles"}}
    cache.upsert(generator("g", rule=rule), 0)
    assert of_generator(cache) == ("UnknownType", "no node has a service of type llm")
    dirty = cache.upsert(node("n", report(tier("qwen", key="models", type_="llm"))), 0)
    assert Key(Kind.GENERATOR, "g") in dirty
    assert of_generator(cache) == ("UnknownAttribute", "no llm service declares modles; similar: models")
    named = report(tier("qwen", key="modles", type_="llm"), sequence=2)
    assert Key(Kind.GENERATOR, "g") in cache.upsert(node("n", named, version=2), 0)
    assert of_generator(cache) is None


def test_many_words_and_names_are_bounded_and_unprintable_ones_left_out() -> None:
    declared = DeclaredWords()
    found = frozenset(service_words(valid(report(tier("x", key=f"k{n}"))).services[0]) for n in range(12))
    declared.replace(frozenset(), found | {frozenset({("asr", "\x1b[2J", ""), ("llm", "m", "")})})
    wanted = [{"key": f"w{n}", "anyOf": ["x"]} for n in range(8)]
    types = pool("p", requires={"types": [{"type": "asr", "attributes": wanted}]}).spec.requires.types
    (update,) = unknown_requirement(undeclared_words(types, {"asr"}, declared.by_type))
    assert update.message.count("no asr service declares w") == 5
    assert update.message.endswith(" and 2 more; and 3 more")
    assert update.message.isprintable()
    assert unknown_requirement(()) == ()


@pytest.mark.parametrize("key", ["model", "version", "device", "languages"])
def test_what_every_service_may_state_is_an_attribute_too(key: str) -> None:
    plain = valid(report(service("a", "asr", languages=["zh"], model="m", version="1", device="gpu"))).services
    declared = DeclaredWords()
    declared.replace(frozenset(), frozenset(map(service_words, plain)))
    assert key in declared.by_type["asr"]
    assert set(declared.by_type["asr"]["languages"]) == {""}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(TIERS, max_size=3)), max_size=12))
def test_words_equal_those_of_a_new_count(changes: list[tuple[str, list[set[str]]]]) -> None:
    declared, nodes = DeclaredWords(), dict[str, frozenset[ServiceWords]]()
    for name, tiers in changes:
        services = [tier(*sorted(values), id_=f"s{n}") for n, values in enumerate(tiers)]
        words = frozenset(map(service_words, valid(report(*services)).services))
        before = {(type_, key): set(v) for type_, keys in declared.by_type.items() for key, v in keys.items()}
        changed = declared.replace(nodes.get(name, frozenset()), words)
        nodes[name] = words
        fresh = DeclaredWords()
        for one in nodes.values():
            fresh.replace(frozenset(), one)
        after = {(type_, key): set(v) for type_, keys in declared.by_type.items() for key, v in keys.items()}
        assert after == {(type_, key): set(v) for type_, keys in fresh.by_type.items() for key, v in keys.items()}
        assert bool(changed) == (before != after)
