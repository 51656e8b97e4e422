"""Services of a node that meet a pool: by attributes, and by language pairs (E7)."""

from __future__ import annotations

from typing import Any

import pytest

from hotpool.api.pool import PoolTemplateSpec
from hotpool.core.matching import match
from hotpool.core.model import Liveness, Meta, Node, NodeView, Report, Rule, ServiceOffer, TypeState
from hotpool.core.node_view import with_report
from hotpool.core.service_filter import ServiceFilter

GOLD = {"tier": frozenset({"gold"})}
SILVER = {"tier": frozenset({"silver"})}


def asr(service: str, *languages: str, attributes: dict[str, frozenset[str]] | None = None) -> ServiceOffer:
    return ServiceOffer(service, "asr", frozenset(languages), attributes=attributes or {})


def tts(service: str, *languages: str) -> ServiceOffer:
    return ServiceOffer(service, "tts", frozenset(languages))


def nmt(service: str, *pairs: str) -> ServiceOffer:
    return ServiceOffer(service, "nmt", rules=(Rule("specific_pairs", pairs=frozenset(pairs)),))


def semantic(service: str, *languages: str) -> ServiceOffer:
    return ServiceOffer(service, "semantic", frozenset(languages))


def report(*offers: ServiceOffer) -> Report:
    by_type: dict[str, tuple[ServiceOffer, ...]] = {}
    for offer in offers:
        by_type[offer.type] = (*by_type.get(offer.type, ()), offer)
    types = {type_: TypeState(True, None, tuple(item.service for item in group)) for type_, group in by_type.items()}
    return Report("i", "s", 1, 1, "t", 15, types=types, offers=by_type)


def spec(*types: str, tier: str | None = None, pairs: tuple[str, ...] = (), repair: bool = False) -> PoolTemplateSpec:
    attributes = [{"key": "tier", "anyOf": [tier]}] if tier else []
    requires: dict[str, Any] = {"types": [{"type": types[0], "attributes": attributes}]}
    requires["types"] += [{"type": type_} for type_ in types[1:]]
    if pairs:
        requires["languagePairs"] = {"allOf": list(pairs), "semantic": repair}
    return PoolTemplateSpec.model_validate({"requires": requires})


def exceptions(wanted: PoolTemplateSpec, *offers: ServiceOffer) -> tuple[str, ...] | None:
    """Return the exceptions of a member."""
    found = report(*offers)
    view = with_report(NodeView(Node(Meta("a", "u", 1)), Liveness.LIVE), Node(Meta("a", "u", 1), report=found))
    assert match(view, wanted).state == "Ready"
    return ServiceFilter.of(wanted).exceptions(found)


def test_a_pool_without_requirements_on_services_has_no_exceptions() -> None:
    assert not ServiceFilter.of(spec("asr", "nmt")).active
    assert exceptions(spec("asr"), asr("fw", attributes=GOLD), asr("fw-2", attributes=SILVER)) is None


def test_two_services_of_one_type_meet_the_pools_of_their_attributes() -> None:
    both = asr("fw", attributes=GOLD), asr("fw-2", attributes=SILVER)
    assert exceptions(spec("asr", tier="gold"), *both) == ("fw",)
    assert exceptions(spec("asr", tier="silver"), *both) == ("fw-2",)
    assert exceptions(spec("asr", tier="gold"), asr("fw", attributes=GOLD), asr("fw-2", attributes=GOLD)) is None


def test_exceptions_name_the_services_of_every_required_type() -> None:
    offers = asr("fw", attributes=GOLD), asr("fw-2", attributes=SILVER), tts("t", "en"), nmt("m", "zh-en")
    assert exceptions(spec("asr", "tts", tier="gold"), *offers) == ("fw", "t")


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (("zh-en",), ("fw", "m", "t")),
        (("ja-en",), ("fw-2", "m-2", "t")),
        (("*-en",), None),
        (("zh-en", "ja-en"), None),
    ],
)
def test_a_service_meets_a_pool_of_languages_if_it_alone_offers_the_pairs(
    pairs: tuple[str, ...], expected: tuple[str, ...] | None
) -> None:
    offers = asr("fw", "zh"), asr("fw-2", "ja"), nmt("m", "zh-en"), nmt("m-2", "ja-en"), tts("t", "en")
    assert exceptions(spec("asr", "nmt", "tts", pairs=pairs), *offers) == expected


def test_the_services_that_offer_most_of_the_pairs_meet_the_pool() -> None:
    offers = asr("fw", "zh", "ja"), asr("fw-2", "ja"), nmt("m", "zh-en", "ja-en"), tts("t", "en")
    assert exceptions(spec("asr", "nmt", "tts", pairs=("zh-en", "ja-en")), *offers) == ("fw", "m", "t")


def test_semantic_services_that_support_a_pair_only_together_all_meet_the_pool() -> None:
    offers = asr("fw", "zh"), nmt("m", "zh-en"), tts("t", "en"), semantic("s", "zh"), semantic("s-2", "en")
    assert exceptions(spec("semantic", "asr", "nmt", "tts", pairs=("zh-en",), repair=True), *offers) is None


def test_a_node_that_no_longer_matches_has_an_exception_for_its_only_service() -> None:
    found, required = report(asr("fw-2", attributes=SILVER)), ServiceFilter.of(spec("asr", tier="gold"))
    assert required.exceptions(found, member=False) == ()
    assert required.exceptions(report(asr("fw", attributes=GOLD)), member=False) is None
