"""Rules of generators: offered keys, and a key's pool contains exactly the nodes that count for it (D5, D6)."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import generator, node, report, requires, service, speech, stopped, view

from hotpool.api.meta import POOL_NAME_MAX
from hotpool.api.names import LABEL_PATTERN
from hotpool.api.pool import PoolSpec
from hotpool.common.hashing import fnv1a64, slot
from hotpool.core.generators.admission import key_rule, pool_name, pool_spec, spec_error
from hotpool.core.generators.key_rule import MAX_KEYS
from hotpool.core.languages import pairs
from hotpool.core.matching import Criterion, evaluate, match
from hotpool.core.model import Endpoint, Generator, Liveness, NodeView

MANY = {"languagePairs": {"manyToOne": True}}
SETS: dict[str, Any] = {"languageSets": {"maxLanguages": 3}}
TIERS = {"attributeValues": {"type": "llm", "key": "tier"}}
HASH = {"hash": {"count": 4, "seed": "s"}}


def keys(seen: NodeView, **spec: Any) -> set[str]:
    rule = key_rule(generator("g", **spec).spec)
    source = rule.source(seen)
    return set() if source is None else set(rule.offered(source).keys)


def spec_of(key: str, **spec: Any) -> PoolSpec:
    return pool_spec("g", key, key_rule(generator("g", **spec).spec))


def llm(*tiers: str, id_: str = "q", **more: Any) -> dict[str, Any]:
    return service(id_, "llm", attributes=[{"key": "tier", "values": list(tiers)}], **more)


# Keys.


def test_directed_pairs_and_no_pair_of_one_language() -> None:
    assert keys(view(speech("zh", "en"))) == {"zh-en", "en-zh"}


def test_many_to_one_adds_a_pool_for_each_target() -> None:
    assert keys(view(speech("zh", "en")), rule=MANY) == {"zh-en", "en-zh", "*-en", "*-zh"}


def test_semantic_pairs_if_the_rule_or_the_template_requires_them() -> None:
    content = speech("zh", "en", "ja")
    seen = view(report(*content["services"], service("r", "semantic", languages=["zh", "en"])))
    assert keys(seen, rule={"languagePairs": {"semantic": True}}) == {"zh-en", "en-zh"}
    template = {"spec": {"requires": {"languagePairs": {"allOf": ["zh-en"], "semantic": True}}}}
    assert keys(seen, template=template) == {"zh-en", "en-zh"}
    assert keys(seen, template=template, rule=SETS) == {"en+zh"}


def test_a_semantic_rule_makes_the_pairs_of_its_template_semantic() -> None:
    spec: dict[str, Any] = {
        "rule": {"languagePairs": {"semantic": True}},
        "template": {"spec": {"requires": {"languagePairs": {"allOf": ["zh-ja"]}}}},
    }
    content = speech("zh", "en", "ja")
    seen = view(report(*content["services"], service("r", "semantic", languages=["zh", "en"])))
    assert keys(seen, **spec) == set()
    assert match(seen, spec_of("zh-en", **spec)).criterion is Criterion.LANGUAGE_PAIR


def test_a_node_that_the_template_excludes_offers_nothing() -> None:
    template = {"spec": {"requires": requires("llm"), "excludeNodes": ["other"]}}
    content = speech("zh", "en")
    rules: tuple[dict[str, Any], ...] = ({"languagePairs": {}}, SETS, HASH)
    for rule in rules:
        spec: dict[str, Any] = {"template": template, "rule": rule}
        assert keys(view(content), **spec) == set()
        assert keys(view(report(*content["services"], stopped("q", "llm"))), **spec) == set()
        assert keys(view(report(*content["services"], service("q", "llm"))), **spec)


@pytest.mark.parametrize("rule", [MANY, SETS, TIERS, HASH], ids=lambda rule: next(iter(rule)))
def test_a_node_that_is_silent_or_leaves_offers_nothing(rule: dict[str, Any]) -> None:
    content = report(*speech("zh", "en")["services"], llm("gold"))
    assert keys(view(content), rule=rule)
    assert keys(view(content, Liveness.OFFLINE), rule=rule) == set()
    assert keys(view({**content, "leaving": True}), rule=rule) == set()
    assert keys(view(None), rule=rule) == set()


def test_language_sets_are_the_largest_with_all_directions() -> None:
    rules = [
        {"kind": "any_to_any", "languages": ["zh", "en", "ja"]},
        {"kind": "specific_pairs", "pairs": ["de-en", "en-de", "de-zh"]},
    ]
    codes = ["zh", "en", "ja", "de"]
    spoken = [service("a", "asr", languages=codes), service("t", "tts", languages=codes)]
    content = report(*spoken, service("m", "nmt", rules=rules))
    assert keys(view(content), rule=SETS) == {"en+ja+zh", "de+en"}
    assert keys(view(content), rule={"languageSets": {"minLanguages": 3}}) == {"en+ja+zh"}


def test_one_pool_for_each_value_of_services_that_count() -> None:
    content = report(llm("gold", "fast"), llm("silver", id_="two"), stopped("three", "llm", model="m"))
    assert keys(view(content), rule=TIERS) == {"gold", "fast", "silver"}
    for key, value in (("model", "m1"), ("version", "1.4"), ("device", "gpu")):
        seen = view(report(service("q", "llm", **{key: value})))
        assert keys(seen, rule={"attributeValues": {"type": "llm", "key": key}}) == {value}
    seen = view(speech("zh", "en"))
    assert keys(seen, rule={"attributeValues": {"type": "asr", "key": "languages"}}) == {"zh", "en"}
    assert keys(seen, rule={"attributeValues": {"type": "asr", "key": "unknown"}}) == set()


def test_only_values_of_services_with_an_endpoint_count_if_the_template_requires_one() -> None:
    content = report(llm("gold"), llm("silver", id_="two"))
    offer = Endpoint("two", "llm", 80, ("10.0.0.1",))
    seen = replace(view(content), endpoints={"two": offer})
    template = {"spec": {"requires": {"types": [{"type": "llm"}], "endpoint": "Required"}}}
    assert keys(seen, rule=TIERS, template=template) == {"silver"}
    assert keys(seen, rule=TIERS) == {"gold", "silver"}


def test_values_come_from_services_that_meet_the_requirements_of_the_template() -> None:
    wanted = {"type": "llm", "attributes": [{"key": "tier", "anyOf": ["gold", "silver"]}]}
    template = {"spec": {"requires": {"types": [wanted, {"type": "asr"}]}}}
    content = report(llm("gold", "fast"), llm("slow", id_="two"), service("a", "asr"))
    assert keys(view(content), rule=TIERS, template=template) == {"gold", "fast"}
    spec = spec_of("fast", rule=TIERS, template=template)
    (attribute,) = spec.requires.types[0].attributes
    assert (attribute.any_of, attribute.all_of) == (("gold", "silver"), ("fast",))
    assert [item.type for item in spec.requires.types] == ["llm", "asr"]
    assert match(view(content), spec).state == "Ready"
    apart = report(llm("gold"), llm("fast", id_="two"), service("a", "asr"))
    assert match(view(apart), spec).criterion is Criterion.ATTRIBUTE


@given(st.lists(st.text(min_size=0, max_size=300), max_size=5))
def test_any_value_that_a_pool_can_require_is_a_key(values: list[str]) -> None:
    fitting = {value for value in values if 1 <= len(value) <= 253}
    seen = view(report(llm(*values)))
    if any(len(value) > 253 for value in values):
        assert seen.node.problem
    else:
        assert keys(seen, rule=TIERS) == fitting
    for value in fitting:
        name, spec = pool_name("g", value), spec_of(value, rule=TIERS)
        assert re.fullmatch(LABEL_PATTERN, name)
        assert len(name) <= POOL_NAME_MAX
        assert spec.generated
        assert (spec.generated.kind, spec.generated.key) == ("AttributeValue", value)
        assert PoolSpec.model_validate(spec.model_dump(by_alias=True)) == spec


# Hash.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xCBF29CE484222325),
        (b"a", 0xAF63DC4C8601EC8C),
        (b"b", 0xAF63DF4C8601F1A5),
        (b"foobar", 0x85944171F73967E8),
        (b"hello", 0xA430D84680AABD0B),
        (b"chongo was here!\n", 0x46810940EFF5F915),
    ],
)
def test_fnv_1a_64_gives_the_published_values(data: bytes, expected: int) -> None:
    assert fnv1a64(data) == expected


def test_the_slot_is_a_hash_of_name_zero_byte_and_seed() -> None:
    assert slot("edge-017", "speech", 16) == fnv1a64(b"edge-017\0speech") % 16
    assert slot("edge-017", "", 7) == fnv1a64(b"edge-017\0") % 7
    assert {slot(f"n{number}", "s", 8) for number in range(200)} == set(range(8))


def test_each_node_is_in_one_hash_pool_by_the_spec_of_the_pool() -> None:
    for name in ("edge-1", "edge-2", "edge-3", "a.b-c"):
        seen = NodeView(node(name, report()), Liveness.LIVE)
        (key,) = keys(seen, rule=HASH)
        inside = [index for index in range(4) if match(seen, spec_of(str(index), rule=HASH)).state]
        assert inside == [int(key)] == [slot(name, "s", 4)]
        other = spec_of(str((int(key) + 1) % 4), rule=HASH)
        (found,) = [f for f in evaluate(seen, other) if not f.met]
        assert (found.criterion, found.observed) == (Criterion.HASH, f"part {key}")


# Property: exactly the nodes that count for a key are in its pool.

CODES = ["zh", "en", "ja", "de"]
CODE_LISTS = st.lists(st.sampled_from(CODES), unique=True, max_size=4)
PAIRS = st.lists(st.sampled_from([f"{a}-{b}" for a in CODES for b in CODES]), max_size=5, unique=True)
RULES = st.builds(
    lambda kind, codes, named, blocked: {"kind": kind, "languages": codes, "pairs": named, "blocked": blocked},
    st.sampled_from(["any_to_any", "any_to_any", "any_to_en", "en_to_any", "specific_pairs"]),
    st.lists(st.sampled_from(CODES), unique=True, min_size=2, max_size=4),
    PAIRS,
    PAIRS,
)
SERVICES = st.builds(
    lambda type_, codes, rules, tiers: service(
        "", type_, languages=codes, rules=rules, attributes=[{"key": "tier", "values": tiers}]
    ),
    st.sampled_from(["asr", "asr", "nmt", "nmt", "tts", "tts", "semantic", "llm"]),
    st.lists(st.sampled_from(CODES), unique=True, min_size=2, max_size=4),
    st.lists(RULES, max_size=2),
    st.lists(st.sampled_from(["gold", "silver", "slow"]), unique=True, max_size=2),
)


@st.composite
def fleets(draw: st.DrawFn) -> list[NodeView]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        services = draw(st.lists(SERVICES, min_size=1, max_size=6))
        content = report(*({**item, "id": f"s{place}"} for place, item in enumerate(services)))
        seen = node(f"n{number}", content, drain=draw(st.booleans()), labels={"site": draw(st.sampled_from("ab"))})
        assert seen.report
        both = [pairs(seen.report, semantic=semantic) for semantic in (False, True)]
        found.append(NodeView(seen, Liveness.LIVE, pairs=both[0], semantic_pairs=both[1]))
    return found


GENERATORS = st.builds(
    lambda rule, types, tiers, site, own: generator(
        "g",
        rule=rule,
        template={
            "spec": {
                "requires": {
                    "types": [
                        {"type": t, "attributes": [{"key": "tier", "anyOf": tiers}] if tiers else []} for t in types
                    ],
                    **({"nodeSelector": {"matchLabels": {"site": "a"}}} if site else {}),
                    **({"languagePairs": own} if own else {}),
                },
                "excludeNodes": ["n3"],
            }
        },
    ),
    st.sampled_from(
        [
            {"languagePairs": {"manyToOne": True}},
            {"languagePairs": {"semantic": True}},
            {"languageSets": {"maxLanguages": 3}},
            {"attributeValues": {"type": "asr", "key": "tier"}},
            {"attributeValues": {"type": "tts", "key": "languages"}},
            {"hash": {"count": 3}},
        ]
    ),
    st.lists(st.sampled_from(["asr", "llm"]), unique=True),
    st.lists(st.sampled_from(["gold", "silver"]), unique=True),
    st.booleans(),
    st.sampled_from([None, None, {"allOf": ["zh-en"]}, {"allOf": ["*-en"], "semantic": True}]),
)


@given(GENERATORS, fleets())
def test_exactly_the_nodes_that_count_for_a_key_are_in_its_pool(by: Generator, views: list[NodeView]) -> None:
    rule = key_rule(by.spec)
    sources = [rule.source(seen) for seen in views]
    offered = [rule.offered(source).keys if source is not None else frozenset() for source in sources]
    for key in frozenset().union(*offered):
        spec = pool_spec("g", key, rule)
        counting = [
            source is not None and (key in own or rule.joins(source, key))
            for source, own in zip(sources, offered, strict=True)
        ]
        assert counting == [match(seen, spec).state is not None for seen in views]
        assert PoolSpec.model_validate(spec.model_dump(by_alias=True, exclude_none=True)) == spec
        if rule.refusal_reason(key) is None:
            assert rule.is_valid_key(key)


# Bounds.


def test_one_node_offers_a_bounded_number_of_keys_the_first_by_name() -> None:
    codes = [f"l{number:03}" for number in range(200)]
    rule = key_rule(generator("g", rule=MANY).spec)
    source = rule.source(view(speech(*codes)))
    assert source
    found = rule.offered(source)
    assert found.over_limit
    assert len(found.keys) == MAX_KEYS
    assert {f"*-{code}" for code in codes} <= found.keys
    every = sorted(f"{a}-{b}" for a in codes for b in codes if a != b)
    assert found.keys == {f"*-{code}" for code in codes} | set(every[: MAX_KEYS - 200])


# Rule and template that contradict each other.


def _values(number: int) -> list[str]:
    return [f"v{index}" for index in range(number)]


def _pairs(number: int) -> dict[str, Any]:
    return {"languagePairs": {"allOf": [f"l{index}-en" for index in range(number)]}}


@pytest.mark.parametrize(
    ("rule", "wanted", "words"),
    [
        ({}, {}, "exactly one"),
        ({**MANY, **HASH}, {}, "exactly one"),
        (HASH, {"hash": {"count": 2, "index": 1}}, "requires.hash"),
        ({"languageSets": {"minLanguages": 4, "maxLanguages": 3}}, {}, "minLanguages"),
        (MANY, _pairs(64), "no room"),
        ({"languageSets": {"maxLanguages": 8}}, _pairs(9), "no room"),
        (TIERS, requires(*(f"t{index}" for index in range(32))), "no room for llm"),
        (
            TIERS,
            {"types": [{"type": "llm", "attributes": [{"key": f"k{i}", "anyOf": ["v"]} for i in range(16)]}]},
            "no room for tier",
        ),
        (TIERS, {"types": [{"type": "llm", "attributes": [{"key": "tier", "allOf": _values(64)}]}]}, "no room"),
    ],
)
def test_a_rule_and_a_template_that_contradict_each_other_are_an_error(
    rule: dict[str, Any], wanted: dict[str, Any], words: str
) -> None:
    found = spec_error(generator("g", rule=rule, template={"spec": {"requires": wanted}}).spec)
    assert found
    assert words in found


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (MANY, _pairs(63)),
        ({"languageSets": {"maxLanguages": 8}}, _pairs(8)),
        (TIERS, requires("llm", *(f"t{index}" for index in range(31)))),
        (TIERS, {"types": [{"type": "llm", "attributes": [{"key": "tier", "allOf": _values(63)}]}]}),
        (HASH, {}),
    ],
)
def test_requirements_that_just_fit_into_a_pool_are_valid(rule: dict[str, Any], wanted: dict[str, Any]) -> None:
    by = generator("g", rule=rule, template={"spec": {"requires": wanted}})
    assert spec_error(by.spec) is None
    key = {"languagePairs": "a-b", "languageSets": "a+b+c+d+e+f+g+h", "attributeValues": "x", "hash": "3"}
    spec = pool_spec("g", key[next(iter(rule))], key_rule(by.spec))
    assert PoolSpec.model_validate(spec.model_dump(by_alias=True)) == spec


@given(st.text(max_size=40))
def test_a_spec_can_be_built_for_any_text_that_is_a_valid_key(key: str) -> None:
    for rule in (MANY, SETS, HASH):
        found = key_rule(generator("g", rule=rule).spec)
        if found.is_valid_key(key):
            assert pool_spec("g", key, found).generated


@pytest.mark.parametrize(
    ("rule", "made_of", "not_made_of"),
    [
        (MANY, ["zh-en", "*-en"], ["zh-zh", "*", "zh", "zh-en-ja", "ZH-en", "*-*", ""]),
        ({"languagePairs": {}}, ["zh-en"], ["*-en"]),
        (SETS, ["en+zh", "en+ja+zh"], ["zh+en", "en", "en+en", "a+b+c+d", "", "en+", "zh-en"]),
        (HASH, ["0", "3"], ["4", "-1", "03", "", "x", "٣"]),
    ],
)
def test_keys_of_other_rules_are_not_valid(rule: dict[str, Any], made_of: list[str], not_made_of: list[str]) -> None:
    found = key_rule(generator("g", rule=rule).spec)
    assert [key for key in [*made_of, *not_made_of] if found.is_valid_key(key)] == made_of
