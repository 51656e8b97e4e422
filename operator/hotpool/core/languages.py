"""Languages and directed pairs of a node, derived from its report (requirement B4).

All results are unions over ready services, so that a stopped service never adds a pair. Pure.
"""

import re
from collections.abc import Iterable
from typing import Final

from hotpool.core.language_pairs import Grid, Pair, Pairs, pairs_of
from hotpool.core.model import Report, Rule

ASR: Final = "asr"
NMT: Final = "nmt"
TTS: Final = "tts"
SEMANTIC: Final = "semantic"

_ENGLISH: Final = frozenset({"en"})
_CODE: Final = re.compile(r"[a-z][a-z0-9]{0,14}")
"""Codes that a pool can name (meta.PAIR_PATTERN). A pair with any other code would make a generator's spec invalid."""


def languages(report: Report, type_: str) -> frozenset[str]:
    """Return the languages of the type's ready services, without codes that a pool cannot name."""
    offered = frozenset().union(*(offer.languages for offer in report.offers.get(type_, ())))
    return frozenset(code for code in offered if _CODE.fullmatch(code))


def pairs(report: Report, *, semantic: bool) -> Pairs:
    """Return the directed pairs of the node. With `semantic`, semantic repair must support both languages, too."""
    sources, targets = languages(report, ASR), languages(report, TTS)
    if semantic:
        repaired = languages(report, SEMANTIC)
        sources, targets = sources & repaired, targets & repaired
    rules = {rule for offer in report.offers.get(NMT, ()) for rule in offer.rules}
    grids = [grid for rule in rules if (grid := _grid(rule, sources, targets))]
    return pairs_of(grids, (pair for rule in rules for pair in _single_pairs(rule, sources, targets)))


def _grid(rule: Rule, sources: frozenset[str], targets: frozenset[str]) -> Grid | None:
    """Return the sources and targets that a rule allows, or None for single pairs and for unknown kinds."""
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
    """Return the pairs that a rule lists one by one."""
    return _offered_pairs(rule.pairs - rule.blocked, sources, targets) if rule.kind == "specific_pairs" else ()


def _offered_pairs(pairs: Iterable[str], sources: frozenset[str], targets: frozenset[str]) -> Iterable[Pair]:
    for pair in pairs:
        source, _, target = pair.partition("-")
        if source != target and source in sources and target in targets:
            yield source, target
