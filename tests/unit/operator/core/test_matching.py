"""Match of a node with a pool, and the deciding criterion (requirements B2, B3, B4, C1, D2, D3)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import node, pool, report, requires, service, speech, stopped, view

from hotpool.api.pool import LabelSelector, PoolSpec
from hotpool.core.matching import Criterion, evaluate, match, selects
from hotpool.core.model import Liveness, NodeView

ASR = report(service("a", "asr"))


def spec(**wire: Any) -> PoolSpec:
    return pool("p", **wire).spec


def result(seen: NodeView, **wire: Any) -> str | None:
    found = match(seen, spec(**wire))
    return found.state or found.criterion


NEEDS_ASR = {"requires": requires("asr")}


@pytest.mark.parametrize(
    ("seen", "wire", "expected"),
    [
        (view(ASR), NEEDS_ASR, "Ready"),
        (view(None), NEEDS_ASR, Criterion.NOT_REPORTED),
        (view({"epoch": "not a number"}), NEEDS_ASR, Criterion.NOT_REPORTED),
        (view(ASR, Liveness.OFFLINE), NEEDS_ASR, Criterion.OFFLINE),
        (view({**ASR, "leaving": True}), NEEDS_ASR, Criterion.LEAVING),
        (view({**ASR, "leaving": True}, drain=True), NEEDS_ASR, Criterion.LEAVING),
        (view(ASR), {**NEEDS_ASR, "excludeNodes": ["n"]}, Criterion.EXCLUDED),
        (view(ASR), {**NEEDS_ASR, "excludeNodes": ["other"]}, "Ready"),
        (view(ASR), {}, Criterion.EMPTY_REQUIREMENTS),
        (view(ASR), {"requires": {"nodeSelector": {}}}, Criterion.EMPTY_REQUIREMENTS),
        (view(ASR), {"requires": {"matchAll": True}}, "Ready"),
        (view(report()), {"requires": {"matchAll": True}}, "Ready"),
        (view(ASR), {"requires": requires("tts", matchAll=True)}, Criterion.TYPE),
        (view(ASR, labels={"site": "a"}), {"requires": {"nodeSelector": {"matchLabels": {"site": "a"}}}}, "Ready"),
        (view(ASR), {"requires": {"nodeSelector": {"matchLabels": {"site": "a"}}}}, Criterion.NODE_SELECTOR),
        (view(report(stopped("a", "asr"))), NEEDS_ASR, Criterion.TYPE),
        (view(ASR), {"requires": requires("asr", "unknown")}, Criterion.TYPE),
        (view(speech("zh", "en")), {"requires": {"languagePairs": {"allOf": ["zh-en"]}}}, "Ready"),
        (
            view(speech("zh", "en")),
            {"requires": {"languagePairs": {"allOf": ["zh-en", "zh-ja"]}}},
            Criterion.LANGUAGE_PAIR,
        ),
        (view(speech("zh", "en")), {"requires": {"languagePairs": {"allOf": ["*-en"]}}}, "Ready"),
        (view(speech("zh", "en")), {"requires": {"languagePairs": {"allOf": ["*-ja"]}}}, Criterion.LANGUAGE_PAIR),
    ],
)
def test_each_criterion_decides(seen: NodeView, wire: dict[str, Any], expected: str) -> None:
    assert result(seen, **wire) == expected


@pytest.mark.parametrize(
    ("drain", "liveness", "state"),
    [
        (False, Liveness.LIVE, "Ready"),
        (False, Liveness.SUSPECT, "Suspect"),
        (True, Liveness.LIVE, "Draining"),
        (True, Liveness.SUSPECT, "Draining"),
    ],
)
def test_a_members_state(*, drain: bool, liveness: Liveness, state: str) -> None:
    assert result(view(ASR, liveness, drain=drain), **NEEDS_ASR) == state
    assert result(view({**ASR, "draining": drain}, liveness), **NEEDS_ASR) == state


@pytest.mark.parametrize("type_", ["asr", "nmt", "tts", "semantic", "phonetic", "llm"])
def test_every_type_counts_and_only_running_ones(type_: str) -> None:
    wire = {"requires": requires(type_)}
    assert result(view(report(service("s", type_))), **wire) == "Ready"
    assert result(view(report(stopped("s", type_))), **wire) is Criterion.TYPE


def test_a_running_service_on_a_device_that_is_not_accepted_does_not_count() -> None:
    content = report(service("s", "asr", device="cpu"))
    content["capabilities"] = [{"type": "asr", "ready": False, "reason": "DeviceNotAccepted", "services": []}]
    seen = view(content)
    assert result(seen, **NEEDS_ASR) is Criterion.TYPE
    assert [f.observed for f in evaluate(seen, spec(**NEEDS_ASR)) if not f.met] == ["DeviceNotAccepted"]


def test_languages_count_only_from_services_through_which_the_type_is_ready() -> None:
    content = speech("zh", "en")
    content["services"].append(service("second", "asr", languages=["ja"]))
    rule = {"kind": "any_to_any", "languages": ["zh", "en", "ja"]}
    content["services"][2]["rules"] = [rule]
    assert set(view(content).pairs) == {"zh-en", "en-zh"}


# Attributes.

GOLD_CPU = service("one", "asr", device="cpu", attributes=[{"key": "tier", "values": ["gold", "fast"]}])
SILVER_GPU = service("two", "asr", device="gpu", attributes=[{"key": "tier", "values": ["silver"]}])


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        ([{"key": "tier", "anyOf": ["gold", "bronze"]}], True),
        ([{"key": "tier", "anyOf": ["bronze"]}], False),
        ([{"key": "tier", "allOf": ["gold", "fast"]}], True),
        ([{"key": "tier", "allOf": ["gold", "silver"]}], False),
        ([{"key": "tier", "anyOf": ["gold"], "allOf": ["fast"]}], True),
        ([{"key": "tier", "anyOf": ["gold"], "allOf": ["silver"]}], False),
        ([{"key": "tier", "anyOf": ["gold"]}, {"key": "device", "anyOf": ["cpu"]}], True),
        ([{"key": "tier", "anyOf": ["gold"]}, {"key": "device", "anyOf": ["gpu"]}], False),
        ([{"key": "tier", "anyOf": ["silver"]}, {"key": "device", "anyOf": ["gpu"]}], True),
        ([{"key": "unknown", "anyOf": ["x"]}], False),
    ],
)
def test_attributes_are_met_by_one_and_the_same_service(wanted: list[dict[str, Any]], met: bool) -> None:  # noqa: FBT001
    wire = {"requires": {"types": [{"type": "asr", "attributes": wanted}]}}
    assert result(view(report(GOLD_CPU, SILVER_GPU)), **wire) == ("Ready" if met else Criterion.ATTRIBUTE)


def test_attributes_of_a_stopped_service_do_not_count() -> None:
    wire = {"requires": {"types": [{"type": "asr", "attributes": [{"key": "tier", "anyOf": ["gold"]}]}]}}
    assert result(view(report({**GOLD_CPU, "state": "Stopped"}, SILVER_GPU)), **wire) is Criterion.ATTRIBUTE


@pytest.mark.parametrize(
    ("key", "value"), [("languages", "zh"), ("model", "v3"), ("version", "1.4"), ("device", "gpu")]
)
def test_languages_model_version_and_device_are_attributes(key: str, value: str) -> None:
    wire = {"requires": {"types": [{"type": "asr", "attributes": [{"key": key, "anyOf": [value]}]}]}}
    seen = view(report(service("s", "asr", languages=["zh-CN"], model="v3", version="1.4", device="gpu")))
    assert result(seen, **wire) == "Ready"
    assert result(view(report(service("s", "asr"))), **wire) is Criterion.ATTRIBUTE


# Languages.


def test_semantic_repair_counts_if_the_pool_requires_it() -> None:
    wire = {"requires": {"languagePairs": {"allOf": ["zh-en"], "semantic": True}}}
    content = speech("zh", "en", "ja")
    assert result(view(content), **wire) is Criterion.LANGUAGE_PAIR
    repaired = report(*content["services"], service("r", "semantic", languages=["zh", "en"]))
    assert result(view(repaired), **wire) == "Ready"
    half = report(*content["services"], service("r", "semantic", languages=["zh"]))
    assert result(view(half), **wire) is Criterion.LANGUAGE_PAIR


def test_languages_that_no_pool_can_name_make_no_pair_and_do_not_affect_others() -> None:
    seen = view(speech("zh", "en", "es-419", "sr-latn", "x" * 40, "1337", "a b"))
    assert set(seen.pairs) == {"zh-en", "en-zh"}


# Label selectors, by the rules of Kubernetes.


@pytest.mark.parametrize(
    ("operator", "values", "matching"),
    [
        ("In", ["a", "b"], [True, True, False, False]),
        ("NotIn", ["a"], [False, True, True, True]),
        ("Exists", [], [True, True, True, False]),
        ("DoesNotExist", [], [False, False, False, True]),
    ],
)
def test_label_expressions_as_in_kubernetes(operator: str, values: list[str], matching: list[bool]) -> None:
    expression = {"key": "site", "operator": operator, "values": values}
    selector = LabelSelector.model_validate({"matchExpressions": [expression]})
    labels = [{"site": "a"}, {"site": "b"}, {"site": ""}, {"other": "a"}]
    assert [selects(selector, item) for item in labels] == matching


def test_all_labels_and_expressions_must_hold() -> None:
    both = {"matchLabels": {"a": "1", "b": "2"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}
    selector = LabelSelector.model_validate(both)
    full = {"a": "1", "b": "2", "c": ""}
    assert selects(selector, full)
    assert not any(selects(selector, {k: v for k, v in full.items() if k != gone}) for gone in full)
    assert not selects(selector, {**full, "a": "2"})


# Property: requirement B4 for pools.

CODES = ("zh", "en", "ja")
_KINDS = ["any_to_any", "any_to_en", "en_to_any", "specific_pairs", "from_the_future"]
_PAIRS = [f"{a}-{b}" for a in CODES for b in CODES]
RULES = st.builds(
    lambda kind, codes, pairs, blocked: {"kind": kind, "languages": codes, "pairs": pairs, "blocked": blocked},
    st.sampled_from(_KINDS),
    st.lists(st.sampled_from(CODES), unique=True),
    st.lists(st.sampled_from(_PAIRS), unique=True, max_size=4),
    st.lists(st.sampled_from(_PAIRS), unique=True, max_size=4),
)
SERVICES = st.builds(
    lambda type_, codes, rules, tier: service(
        "", type_, languages=codes, rules=rules, attributes=[{"key": "tier", "values": tier}]
    ),
    st.sampled_from(["asr", "nmt", "tts", "semantic", "llm"]),
    st.lists(st.sampled_from(CODES), unique=True),
    st.lists(RULES, max_size=2),
    st.lists(st.sampled_from(["gold", "silver"]), unique=True),
)
POOLS = st.builds(
    lambda types, tier, pair, semantic: spec(
        requires={
            "types": [{"type": t, "attributes": [{"key": "tier", "anyOf": tier}] if tier else []} for t in types],
            **({"languagePairs": {"allOf": [pair], "semantic": semantic}} if pair else {"matchAll": True}),
        }
    ),
    st.lists(st.sampled_from(["asr", "nmt", "tts", "semantic", "llm"]), unique=True, max_size=3),
    st.lists(st.sampled_from(["gold", "silver"]), unique=True),
    st.sampled_from([None, *(pair for pair in _PAIRS if pair[:2] != pair[3:]), "*-en"]),
    st.booleans(),
)


@given(st.lists(SERVICES, min_size=1, max_size=8), st.lists(POOLS, min_size=1, max_size=5), st.data())
def test_stopping_any_service_never_brings_a_node_into_a_pool(
    services: list[dict[str, Any]], pools: list[PoolSpec], data: st.DataObject
) -> None:
    running = [{**item, "id": f"s{number}"} for number, item in enumerate(services)]
    gone = data.draw(st.integers(0, len(running) - 1))
    fewer = [{**item, "state": "Stopped"} if number == gone else item for number, item in enumerate(running)]
    before, after = view(report(*running)), view(report(*fewer))
    assert set(after.pairs) <= set(before.pairs)
    assert set(after.semantic_pairs) <= set(before.semantic_pairs)
    assert not any(pair.split("-")[0] == pair.split("-")[1] for pair in before.pairs)
    for wanted in pools:
        assert match(before, wanted).state or not match(after, wanted).state


def test_findings_have_the_first_unmet_criterion_and_the_observed_value() -> None:
    broken = NodeView(node("n", {"epoch": "x"}), Liveness.LIVE)
    found = next(f for f in evaluate(broken, spec(**NEEDS_ASR)) if not f.met)
    assert found.criterion is Criterion.NOT_REPORTED
    assert "status.report" in found.observed
