"""Missing parts of a language pair on a node, and changes that would add them (requirement F2).

Pure. Makes no decision: `core.languages` decides if a rule allows a pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hotpool.api.languages import normalise_language
from hotpool.api.pool import LanguageRequirement
from hotpool.core import languages
from hotpool.core.explain.remedies import (
    MAX_LISTED,
    NO_SERVICE,
    Diagnosis,
    NodeFacts,
    earliest,
    latest,
    make_ready,
    one_of,
)
from hotpool.core.lists_of_words import listed
from hotpool.core.matching import Finding
from hotpool.core.model import Report, Rule, ServiceOffer

_MAX_LANGUAGES = 8
"""Bound of the languages named in one line."""


@dataclass(frozen=True, slots=True)
class _MissingPart:
    """Missing part of a pair."""

    type: str
    text: str
    services: tuple[str, ...]
    """Services that would add it if they were ready."""
    fallback: str
    """Remedy if there is no such service."""


def for_pair(facts: NodeFacts, pair: str, required: LanguageRequirement, finding: Finding) -> Diagnosis:
    """Diagnose a directed language pair: its missing parts."""
    types = [languages.ASR, languages.NMT, languages.TTS, *([languages.SEMANTIC] if required.semantic else [])]
    source, target = (normalise_language(code) or code for code in pair.split("-", 1))
    if finding.met:
        times = [earliest(s.since for s in facts.services_of_type(t) if s.id in _ready_ids(facts, t)) for t in types]
        return Diagnosis(f"{source}-{target} is offered", latest(times))
    if source == "*":
        return _diagnose_any_source(facts, target, required)
    missing = list(_missing_parts(facts, source, target, semantic=required.semantic))
    return _diagnose(facts, missing)


def _ready_ids(facts: NodeFacts, type_: str) -> set[str]:
    return {offer.service for offer in facts.offers(type_)}


def _diagnose(facts: NodeFacts, missing: list[_MissingPart], prefix: str = "") -> Diagnosis:
    types = {part.type for part in missing}
    remedies: dict[str, None] = {}
    for part in missing:
        alternatives = (make_ready(facts, service, "") for service in facts.services if service.id in part.services)
        remedies[one_of(alternatives, part.fallback)] = None
    since = latest(service.since for service in facts.services if service.type in types)
    return Diagnosis(prefix + "; ".join(part.text for part in missing), since, tuple(remedies))


def _diagnose_any_source(facts: NodeFacts, target: str, required: LanguageRequirement) -> Diagnosis:
    """Diagnose `*-tgt` for the source language with the fewest missing parts."""
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
        yield _MissingPart(languages.NMT, "source and target are one language", (), "require another pair")
        return
    yield from _missing_languages(facts, languages.ASR, source)
    yield from _missing_rule(facts, f"{source}-{target}")
    yield from _missing_languages(facts, languages.TTS, target)
    if semantic:
        yield from _missing_languages(facts, languages.SEMANTIC, source, target)


def _missing_languages(facts: NodeFacts, type_: str, *codes: str) -> Iterator[_MissingPart]:
    """Yield a missing part unless the type offers all these languages."""
    report = facts.view.node.report
    offered = languages.languages(report, type_) if report else frozenset()
    missing = [code for code in codes if code not in offered]
    if not missing:
        return
    state = f"{type_} offers {listed(sorted(offered), _MAX_LANGUAGES)}" if offered else f"no {type_} service counts"
    services = tuple(offer.service for offer in facts.potential_offers(type_) if offer.languages.issuperset(missing))
    words = " and ".join(missing)
    add = f"add {words} to the languages of a running {type_} service in the catalogue of {facts.name}"
    yield _MissingPart(type_, f"{words} {'is' if len(missing) == 1 else 'are'} not in {type_} ({state})", services, add)


def _missing_rule(facts: NodeFacts, pair: str) -> Iterator[_MissingPart]:
    """Yield a missing part unless a rule of a ready service allows the pair."""
    offers = facts.offers(languages.NMT)
    if any(_allows(rule, pair) for offer in offers for rule in offer.rules):
        return
    unblocked = [
        offer.service for offer in offers for rule in offer.rules if _allows(replace(rule, blocked=frozenset()), pair)
    ]
    words = f"no nmt rule allows {pair}" if offers else f"no nmt service counts, to translate {pair}"
    add = f"add a rule for {pair} to a running nmt service in the catalogue of {facts.name}"
    if unblocked:
        words = f"{pair} is blocked in {listed(dict.fromkeys(unblocked), MAX_LISTED)}"
        add = f"take {pair} out of the blocked pairs of {unblocked[0]} in the catalogue of {facts.name}"
    possible = facts.potential_offers(languages.NMT)
    services = tuple(offer.service for offer in possible if any(_allows(rule, pair) for rule in offer.rules))
    yield _MissingPart(languages.NMT, words, services, add)


def _allows(rule: Rule, pair: str) -> bool:
    """Return True if a rule alone allows a pair, by deriving the pairs of a node with this pair only."""
    source, _, target = pair.partition("-")
    offers = {
        languages.ASR: (ServiceOffer("asr", languages.ASR, frozenset({source})),),
        languages.NMT: (ServiceOffer("nmt", languages.NMT, rules=(rule,)),),
        languages.TTS: (ServiceOffer("tts", languages.TTS, frozenset({target})),),
    }
    node = Report(*NO_SERVICE, time="", interval=1.0, offers=offers)
    return pair in languages.pairs(node, semantic=False)
