"""Which part of a language pair a node lacks, and what would add it (requirement F2).

Pure. It decides nothing: whether a rule allows a pair is asked of `core.languages`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hotpool.api.languages import normalise_language
from hotpool.api.pool import LanguageRequirement
from hotpool.core import languages
from hotpool.core.explain.remedies import (
    NO_SERVICE,
    Diagnosis,
    NodeFacts,
    earliest,
    join_alternatives,
    latest,
    list_some,
    make_ready,
)
from hotpool.core.matching import Finding
from hotpool.core.model import Report, Rule, ServiceOffer

_MAX_LANGUAGES = 8
"""Languages named in one line."""


@dataclass(frozen=True, slots=True)
class _MissingPart:
    """One part of a pair that is missing."""

    type: str
    text: str
    services: tuple[str, ...]
    """Services that would add it."""
    fallback: str
    """What to do where there is no such service."""


def for_pair(facts: NodeFacts, pair: str, required: LanguageRequirement, finding: Finding) -> Diagnosis:
    """A directed language pair: which part of it is missing."""
    types = [languages.ASR, languages.NMT, languages.TTS, *([languages.SEMANTIC] if required.semantic else [])]
    source, target = (normalise_language(code) or code for code in pair.split("-", 1))
    if finding.met:
        sinces = [
            earliest(s.since for s in facts.services_of_type(type_) if s.id in _ready_services(facts, type_))
            for type_ in types
        ]
        return Diagnosis(f"{source}-{target} is offered", latest(sinces))
    if source == "*":
        return _diagnose_any_source(facts, target, required)
    missing = list(_missing_parts(facts, source, target, semantic=required.semantic))
    return _diagnose(facts, missing)


def _ready_services(facts: NodeFacts, type_: str) -> set[str]:
    return {offer.service for offer in facts.offers(type_)}


def _diagnose(facts: NodeFacts, missing: list[_MissingPart], prefix: str = "") -> Diagnosis:
    involved = {part.type for part in missing}
    flips: dict[str, None] = {}
    for part in missing:
        ways = (make_ready(facts, service, "") for service in facts.services if service.id in part.services)
        flips[join_alternatives(ways, part.fallback)] = None
    since = latest(service.since for service in facts.services if service.type in involved)
    return Diagnosis(prefix + "; ".join(part.text for part in missing), since, tuple(flips))


def _diagnose_any_source(facts: NodeFacts, target: str, required: LanguageRequirement) -> Diagnosis:
    """`*-tgt`: the source language for which the least is missing."""
    known = [facts.view.node.report, facts.potential]
    sources = {code for report in known if report for code in languages.languages(report, languages.ASR)} - {target}
    if not sources:
        add = f"add a language to an asr service in the catalogue of {facts.name}"
        return Diagnosis(f"no asr service with a language other than {target}", None, (add,))
    options = {source: list(_missing_parts(facts, source, target, semantic=required.semantic)) for source in sources}
    source = min(options, key=lambda code: (len(options[code]), code))
    return _diagnose(facts, options[source], f"not from any source, the nearest {source}-{target}: ")


def _missing_parts(facts: NodeFacts, source: str, target: str, *, semantic: bool) -> Iterator[_MissingPart]:
    if source == target:
        yield _MissingPart(languages.NMT, "source and target are one language", (), "ask for another pair")
        return
    yield from _missing_languages(facts, languages.ASR, source)
    yield from _missing_rule(facts, f"{source}-{target}")
    yield from _missing_languages(facts, languages.TTS, target)
    if semantic:
        yield from _missing_languages(facts, languages.SEMANTIC, source, target)


def _missing_languages(facts: NodeFacts, type_: str, *codes: str) -> Iterator[_MissingPart]:
    """Nothing where the type offers the languages."""
    report = facts.view.node.report
    offered = languages.languages(report, type_) if report else frozenset()
    lacking = [code for code in codes if code not in offered]
    if not lacking:
        return
    counting = (
        f"{type_} offers {list_some(sorted(offered), _MAX_LANGUAGES)}" if offered else f"no {type_} service counts"
    )
    services = tuple(offer.service for offer in facts.potential_offers(type_) if offer.languages.issuperset(lacking))
    words = " and ".join(lacking)
    add = f"add {words} to the languages of a running {type_} service in the catalogue of {facts.name}"
    yield _MissingPart(
        type_, f"{words} {'is' if len(lacking) == 1 else 'are'} not in {type_} ({counting})", services, add
    )


def _missing_rule(facts: NodeFacts, pair: str) -> Iterator[_MissingPart]:
    """Nothing where a translation rule that counts allows the pair."""
    offers = facts.offers(languages.NMT)
    if any(_allows(rule, pair) for offer in offers for rule in offer.rules):
        return
    unblocked = [
        offer.service for offer in offers for rule in offer.rules if _allows(replace(rule, blocked=frozenset()), pair)
    ]
    words = f"no nmt rule allows {pair}" if offers else f"no nmt service counts, to translate {pair}"
    add = f"add a rule for {pair} to a running nmt service in the catalogue of {facts.name}"
    if unblocked:
        words = f"{pair} is blocked in {list_some(dict.fromkeys(unblocked))}"
        add = f"take {pair} out of the blocked pairs of {unblocked[0]} in the catalogue of {facts.name}"
    possible = facts.potential_offers(languages.NMT)
    services = tuple(offer.service for offer in possible if any(_allows(rule, pair) for rule in offer.rules))
    yield _MissingPart(languages.NMT, words, services, add)


def _allows(rule: Rule, pair: str) -> bool:
    """Whether a rule alone allows a pair: asked of the function that derives pairs, with a node of just that pair."""
    source, _, target = pair.partition("-")
    offers = {
        languages.ASR: (ServiceOffer("asr", languages.ASR, frozenset({source})),),
        languages.NMT: (ServiceOffer("nmt", languages.NMT, rules=(rule,)),),
        languages.TTS: (ServiceOffer("tts", languages.TTS, frozenset({target})),),
    }
    node = Report(*NO_SERVICE, time="", interval=1.0, offers=offers)
    return pair in languages.pairs(node, semantic=False)
