"""Languages and pairs (requirements B3, B4)."""

import gc
import sys
from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import core_report, node, offer, report, service

from hotpool.core.generators.maximal_cliques import language_graph
from hotpool.core.language_pairs import Pairs
from hotpool.core.languages import pairs
from hotpool.core.model import Report, Rule

CODES = ("zh", "en", "ja", "de")


def decoded(content: dict[str, Any]) -> Report:
    found = node("n", content).report
    assert found
    return found


def speech_report(rule: dict[str, Any], **more: Any) -> dict[str, Any]:
    both = {"languages": list(CODES)}
    return report(service("a", "asr", **both), service("t", "tts", **both), service("m", "nmt", rules=[rule], **more))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"kind": "any_to_any", "languages": ["zh", "en"]}, {"zh-en", "en-zh"}),
        ({"kind": "any_to_en", "languages": ["zh", "ja"]}, {"zh-en", "ja-en"}),
        ({"kind": "en_to_any", "languages": ["zh", "ja"]}, {"en-zh", "en-ja"}),
        ({"kind": "specific_pairs", "pairs": ["zh-ja", "de-de", "zh-fr"]}, {"zh-ja"}),
        ({"kind": "any_to_any", "languages": ["zh", "en"], "blocked": ["en-zh"]}, {"zh-en"}),
        ({"kind": "any_to_any", "languages": ["ZH-CN", "en-US"]}, {"zh-en", "en-zh"}),
        ({"kind": "of_the_future", "languages": ["zh", "en"]}, set()),
    ],
)
def test_each_rule_kind(rule: dict[str, Any], expected: set[str]) -> None:
    assert set(pairs(decoded(speech_report(rule)), semantic=False)) == expected


def test_a_rules_blocked_pairs_limit_that_rule_only() -> None:
    both = {"languages": ["zh", "en"]}
    rules = [{"kind": "any_to_any", **both, "blocked": ["zh-en"]}, {"kind": "any_to_en", "languages": ["zh"]}]
    content = report(service("a", "asr", **both), service("t", "tts", **both), service("m", "nmt", rules=rules))
    assert set(pairs(decoded(content), semantic=False)) == {"zh-en", "en-zh"}


def test_semantic_needs_both_languages() -> None:
    content = speech_report({"kind": "any_to_any", "languages": list(CODES)})
    content = report(*content["services"], service("r", "semantic", languages=["zh", "en"]))
    assert set(pairs(decoded(content), semantic=True)) == {"zh-en", "en-zh"}


SERVICES = st.builds(
    lambda type_, codes, kind, blocked: {
        "type": type_,
        "state": "Running",
        "languages": codes,
        "rules": [{"kind": kind, "languages": codes, "pairs": blocked, "blocked": blocked[:1]}],
    },
    st.sampled_from(["asr", "nmt", "tts", "semantic"]),
    st.lists(st.sampled_from(CODES), unique=True),
    st.sampled_from(["any_to_any", "any_to_en", "en_to_any", "specific_pairs"]),
    st.lists(st.sampled_from(["zh-en", "en-zh", "ja-en"]), unique=True),
)


@given(st.lists(SERVICES, min_size=1, max_size=8), st.data())
def test_stopping_a_service_never_adds_a_pair_a_language_or_a_capability(
    services: list[dict[str, Any]], data: st.DataObject
) -> None:
    running = [{**item, "id": f"s{number}"} for number, item in enumerate(services)]
    stopped = [dict(item) for item in running]
    data.draw(st.sampled_from(stopped))["state"] = "Stopped"
    before, after = decoded(report(*running)), decoded(report(*stopped))
    for semantic in (False, True):
        assert set(pairs(after, semantic=semantic)) <= set(pairs(before, semantic=semantic))
    for type_, offers in after.offers.items():
        assert {offer.service for offer in offers} <= {offer.service for offer in before.offers[type_]}
    assert {t for t, s in after.types.items() if s.ready} <= {t for t, s in before.types.items() if s.ready}


# Pairs without their product.

CODE = st.sampled_from(["zh", "en", "ja", "de", "a", "ab"])
PAIR = st.builds(lambda source, target: f"{source}-{target}", CODE, CODE)
RULE = st.builds(
    Rule,
    st.sampled_from(["any_to_any", "any_to_en", "en_to_any", "specific_pairs", "from_the_future"]),
    st.frozensets(CODE),
    st.frozensets(PAIR, max_size=6),
    st.frozensets(PAIR, max_size=6),
)


def expected_pairs(sources: frozenset[str], targets: frozenset[str], rules: list[Rule]) -> set[str]:
    """Return the pairs by the definition of requirement B4, one at a time."""
    found = set()
    for source, target, rule in product(sources, targets, rules):
        pair = f"{source}-{target}"
        allowed = {
            "any_to_any": {source, target} <= rule.languages,
            "any_to_en": source in rule.languages and target == "en",
            "en_to_any": source == "en" and target in rule.languages,
            "specific_pairs": pair in rule.pairs,
        }
        if source != target and pair not in rule.blocked and allowed.get(rule.kind, False):
            found.add(pair)
    return found


def derived(sources: frozenset[str], targets: frozenset[str], rules: list[Rule], *repaired: str) -> Pairs:
    offers = [offer("a", "asr", *sources), offer("t", "tts", *targets), offer("r", "semantic", *repaired)]
    content = core_report(*offers, offer("m", "nmt", rules=rules))
    return pairs(content, semantic=bool(repaired))


@given(st.frozensets(CODE), st.frozensets(CODE), st.lists(RULE, max_size=4))
def test_pairs_are_the_expected_product(sources: frozenset[str], targets: frozenset[str], rules: list[Rule]) -> None:
    found, expected = derived(sources, targets, rules), expected_pairs(sources, targets, rules)
    assert list(found) == sorted(expected)
    assert bool(found) == bool(expected)
    assert found.targets == {pair.split("-")[1] for pair in expected}
    for source, target in product(["zh", "en", "ja", "de", "a", "ab", "xx", "*", ""], repeat=2):
        assert (f"{source}-{target}" in found) == (f"{source}-{target}" in expected)
    for codes in combinations(sorted(sources | targets), 3):
        every = {f"{a}-{b}" for a in codes for b in codes if a != b}
        assert language_graph(found).connects(frozenset(codes)) == (every <= expected)


@given(st.frozensets(CODE), st.frozensets(CODE), st.lists(RULE, max_size=4))
def test_repaired_pairs_are_those_of_repaired_languages(
    sources: frozenset[str], targets: frozenset[str], rules: list[Rule]
) -> None:
    expected = expected_pairs(sources & {"zh", "en"}, targets & {"zh", "en"}, rules)
    assert set(derived(sources, targets, rules, "zh", "en")) == expected


@given(st.frozensets(CODE), st.frozensets(CODE), st.lists(RULE, max_size=4), st.randoms())
def test_pairs_of_equal_inputs_are_one_object(sources: Any, targets: Any, rules: list[Rule], random: Any) -> None:
    found = derived(sources, targets, rules)
    shuffled = [*rules, *rules[:1], Rule("any_to_any", frozenset({"no-such"}))]
    random.shuffle(shuffled)
    assert derived(sources, targets, shuffled) is found
    assert hash(found) == hash(derived(sources, targets, shuffled))


def test_pairs_of_other_languages_differ_and_no_languages_are_false() -> None:
    both = Rule("any_to_any", frozenset({"zh", "en", "ja"}))
    few, more = (derived(frozenset(codes), frozenset(codes), [both]) for codes in (["zh", "en"], ["zh", "en", "ja"]))
    assert few != more
    assert not derived(frozenset({"zh"}), frozenset({"zh"}), [both])
    assert 7 not in more
    assert "zhen" not in more


def test_512_languages_do_not_create_261632_strings() -> None:
    codes = [f"l{number}" for number in range(512)]
    content = report(
        service("a", "asr", languages=codes),
        service("t", "tts", languages=codes),
        service("m", "nmt", rules=[{"kind": "any_to_any", "languages": codes}]),
    )
    seen = decoded(content)
    gc.collect()
    before = sys.getallocatedblocks()
    found = pairs(seen, semantic=False)
    assert "l0-l511" in found
    assert len(found.targets) == 512
    assert sys.getallocatedblocks() - before < 5_000
    assert next(iter(found)) == "l0-l1"
