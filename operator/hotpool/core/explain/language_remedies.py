"""Which part of a language pair a node lacks, and what would add it (requirement F2).

Pure. It decides nothing: whether a rule allows a pair is asked of `core.languages`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hotpool.api.languages import normalise_language
from hotpool.api.pool import LanguageRequirement
from hotpool.core import languages
from hotpool.core.explain.remedies import NO_SERVICE, NodeFacts, Remedy, any_of, first, last, listed, make_ready
from hotpool.core.matching import Finding
from hotpool.core.model import Report, Rule, ServiceOffer

_LANGUAGES = 8
"""Languages named in one line."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a pair that is missing."""

    type: str
    words: str
    services: tuple[str, ...]
    """Services that would add it."""
    otherwise: str
    """What to do where there is no such service."""


def for_pair(facts: NodeFacts, pair: str, required: LanguageRequirement, finding: Finding) -> Remedy:
    """A directed language pair: which part of it is missing."""
    types = [languages.ASR, languages.NMT, languages.TTS, *([languages.SEMANTIC] if required.semantic else [])]
    source, target = (normalise_language(code) or code for code in pair.split("-", 1))
    if finding.met:
        sinces = [first(s.since for s in facts.of_type(type_) if s.id in _ids(facts, type_)) for type_ in types]
        return Remedy(f"{source}-{target} is offered", last(sinces))
    if source == "*":
        return _from_any(facts, target, required)
    missing = list(_missing(facts, source, target, semantic=required.semantic))
    return _unmet(facts, missing)


def _ids(facts: NodeFacts, type_: str) -> set[str]:
    return {offer.service for offer in facts.offers(type_)}


def _unmet(facts: NodeFacts, missing: list[_Part], prefix: str = "") -> Remedy:
    involved = {part.type for part in missing}
    flips: dict[str, None] = {}
    for part in missing:
        ways = (make_ready(facts, service, "") for service in facts.services if service.id in part.services)
        flips[any_of(ways, part.otherwise)] = None
    since = last(service.since for service in facts.services if service.type in involved)
    return Remedy(prefix + "; ".join(part.words for part in missing), since, tuple(flips))


def _from_any(facts: NodeFacts, target: str, required: LanguageRequirement) -> Remedy:
    """`*-tgt`: the source language for which the least is missing."""
    known = [facts.view.node.report, facts.potential]
    sources = {code for report in known if report for code in languages.languages(report, languages.ASR)} - {target}
    if not sources:
        add = f"add a language to an asr service in the catalogue of {facts.name}"
        return Remedy(f"no asr service with a language other than {target}", None, (add,))
    options = {source: list(_missing(facts, source, target, semantic=required.semantic)) for source in sources}
    source = min(options, key=lambda code: (len(options[code]), code))
    return _unmet(facts, options[source], f"not from any source, the nearest {source}-{target}: ")


def _missing(facts: NodeFacts, source: str, target: str, *, semantic: bool) -> Iterator[_Part]:
    if source == target:
        yield _Part(languages.NMT, "source and target are one language", (), "ask for another pair")
        return
    yield from _language(facts, languages.ASR, source)
    yield from _rule(facts, f"{source}-{target}")
    yield from _language(facts, languages.TTS, target)
    if semantic:
        yield from _language(facts, languages.SEMANTIC, source, target)


def _language(facts: NodeFacts, type_: str, *codes: str) -> Iterator[_Part]:
    """Nothing where the type offers the languages."""
    report = facts.view.node.report
    offered = languages.languages(report, type_) if report else frozenset()
    lacking = [code for code in codes if code not in offered]
    if not lacking:
        return
    counting = f"{type_} offers {listed(sorted(offered), _LANGUAGES)}" if offered else f"no {type_} service counts"
    services = tuple(offer.service for offer in facts.could_offer(type_) if offer.languages.issuperset(lacking))
    words = " and ".join(lacking)
    add = f"add {words} to the languages of a running {type_} service in the catalogue of {facts.name}"
    yield _Part(type_, f"{words} {'is' if len(lacking) == 1 else 'are'} not in {type_} ({counting})", services, add)


def _rule(facts: NodeFacts, pair: str) -> Iterator[_Part]:
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
        words = f"{pair} is blocked in {listed(dict.fromkeys(unblocked))}"
        add = f"take {pair} out of the blocked pairs of {unblocked[0]} in the catalogue of {facts.name}"
    possible = facts.could_offer(languages.NMT)
    services = tuple(offer.service for offer in possible if any(_allows(rule, pair) for rule in offer.rules))
    yield _Part(languages.NMT, words, services, add)


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
