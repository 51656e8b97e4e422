"""Languages and directed pairs that a node offers, derived from its report (requirement B4).

Everything is a union over offers, so that a service that stops never adds a pair.
"""

import re
from collections.abc import Iterable
from typing import Final

from hotpool.core.model import Report, Rule
from hotpool.core.pairs import Grid, Pair, Pairs, pairs_of

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


def pairs(report: Report, *, semantic: bool) -> Pairs:
    """The directed pairs that the node offers; with `semantic`, both languages also in semantic repair."""
    sources, targets = languages(report, ASR), languages(report, TTS)
    if semantic:
        repaired = languages(report, SEMANTIC)
        sources, targets = sources & repaired, targets & repaired
    rules = {rule for offer in report.offers.get(NMT, ()) for rule in offer.rules}
    grids = [grid for rule in rules if (grid := _grid(rule, sources, targets))]
    return pairs_of(grids, (pair for rule in rules for pair in _single_pairs(rule, sources, targets)))


def _grid(rule: Rule, sources: frozenset[str], targets: frozenset[str]) -> Grid | None:
    """Which sources a rule allows with which targets; a rule of unknown kind allows nothing."""
    match rule.kind:
        case "any_to_any":
            sources, targets = sources & rule.languages, targets & rule.languages
        case "any_to_en":
            sources, targets = sources & rule.languages, targets & _ENGLISH
        case "en_to_any":
            sources, targets = sources & _ENGLISH, targets & rule.languages
        case _:
            return None
    return Grid(sources, targets, frozenset(_offered_pairs(rule.blocked, sources, targets)))


def _single_pairs(rule: Rule, sources: frozenset[str], targets: frozenset[str]) -> Iterable[Pair]:
    """The pairs that a rule names one by one."""
    return _offered_pairs(rule.pairs - rule.blocked, sources, targets) if rule.kind == "specific_pairs" else ()


def _offered_pairs(pairs: Iterable[str], sources: frozenset[str], targets: frozenset[str]) -> Iterable[Pair]:
    for pair in pairs:
        source, _, target = pair.partition("-")
        if source != target and source in sources and target in targets:
            yield source, target
