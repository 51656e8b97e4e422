"""Languages and pairs (behaviour B3, B4)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import node, report, service

from hotpool.core.languages import pairs
from hotpool.core.model import Report

CODES = ("zh", "en", "ja", "de")


def decoded(content: dict[str, Any]) -> Report:
    found = node("n", content).report
    assert found
    return found


def speech(rule: dict[str, Any], **more: Any) -> dict[str, Any]:
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
def test_b4_each_rule_kind(rule: dict[str, Any], expected: set[str]) -> None:
    assert pairs(decoded(speech(rule)), semantic=False) == expected


def test_b4_a_rules_blocked_pairs_limit_that_rule_only() -> None:
    both = {"languages": ["zh", "en"]}
    rules = [{"kind": "any_to_any", **both, "blocked": ["zh-en"]}, {"kind": "any_to_en", "languages": ["zh"]}]
    content = report(service("a", "asr", **both), service("t", "tts", **both), service("m", "nmt", rules=rules))
    assert pairs(decoded(content), semantic=False) == {"zh-en", "en-zh"}


def test_b4_semantic_needs_both_languages() -> None:
    content = speech({"kind": "any_to_any", "languages": list(CODES)})
    content = report(*content["services"], service("r", "semantic", languages=["zh", "en"]))
    assert pairs(decoded(content), semantic=True) == {"zh-en", "en-zh"}


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
def test_b4_stopping_a_service_never_adds_a_pair_a_language_or_a_capability(
    services: list[dict[str, Any]], data: st.DataObject
) -> None:
    running = [{**item, "id": f"s{number}"} for number, item in enumerate(services)]
    stopped = [dict(item) for item in running]
    data.draw(st.sampled_from(stopped))["state"] = "Stopped"
    before, after = decoded(report(*running)), decoded(report(*stopped))
    for semantic in (False, True):
        assert pairs(after, semantic=semantic) <= pairs(before, semantic=semantic)
    for type_, offers in after.offers.items():
        assert {offer.service for offer in offers} <= {offer.service for offer in before.offers[type_]}
    assert {t for t, s in after.types.items() if s.ready} <= {t for t, s in before.types.items() if s.ready}
