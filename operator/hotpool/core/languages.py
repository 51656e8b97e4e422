"""Languages and directed pairs that a node offers, derived from its report (behaviour B4).

Called by the state and by generators. Everything is a union over offers, so that a service that stops never adds a
pair.
"""

import re
from collections.abc import Iterable
from typing import Final

from hotpool.core.model import Offer, Report, Rule

ASR: Final = "asr"
NMT: Final = "nmt"
TTS: Final = "tts"
SEMANTIC: Final = "semantic"
LANGUAGE_TYPES: Final = frozenset({ASR, NMT, TTS, SEMANTIC})

_ENGLISH: Final = frozenset({"en"})
_CODE: Final = re.compile(r"[a-z][a-z0-9]{0,14}")
"""What a pool can name (meta.PAIR_PATTERN); of any other code no pair is made, or it would spoil its generator."""


def languages(report: Report, type_: str) -> frozenset[str]:
    """The languages of the type's ready services, as far as pools can name them."""
    offered = frozenset().union(*(offer.languages for offer in report.offers.get(type_, ())))
    return frozenset(code for code in offered if _CODE.fullmatch(code))


def pairs(report: Report, *, semantic: bool) -> frozenset[str]:
    """The directed pairs `src-tgt` that the node offers; with `semantic`, both languages also in semantic repair."""
    sources, targets = languages(report, ASR), languages(report, TTS)
    if semantic:
        repaired = languages(report, SEMANTIC)
        sources, targets = sources & repaired, targets & repaired
    found: set[str] = set()
    for rule in _rules(report.offers.get(NMT, ())):
        found |= _allowed(rule, sources, targets)
    return frozenset(found)


def _rules(offers: Iterable[Offer]) -> Iterable[Rule]:
    return (rule for offer in offers for rule in offer.rules)


def _allowed(rule: Rule, sources: frozenset[str], targets: frozenset[str]) -> set[str]:
    """The pairs of one rule; a rule of unknown kind allows nothing."""
    match rule.kind:
        case "any_to_any":
            found = _product(sources & rule.languages, targets & rule.languages)
        case "any_to_en":
            found = _product(sources & rule.languages, targets & _ENGLISH)
        case "en_to_any":
            found = _product(sources & _ENGLISH, targets & rule.languages)
        case "specific_pairs":
            found = _product(sources, targets) & rule.pairs
        case _:
            found = set()
    return found - rule.blocked


def _product(sources: Iterable[str], targets: Iterable[str]) -> set[str]:
    tgts = tuple(targets)
    return {f"{source}-{target}" for source in sources for target in tgts if source != target}


def target(pair: str) -> str:
    """The target language of a pair."""
    return pair.rpartition("-")[2]
