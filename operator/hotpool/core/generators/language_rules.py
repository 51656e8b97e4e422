"""Rules for pools by language: directed pairs, many-to-one pairs, language sets (requirement D5).

Pure.
"""

import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, permutations
from typing import Final
from weakref import WeakKeyDictionary

from hotpool.api.generator import LanguagePairsRule, LanguageSetsRule
from hotpool.api.meta import PAIR_PATTERN
from hotpool.api.pool import GeneratedKind, LanguageRequirement, PoolTemplateSpec, Requirements
from hotpool.core.generators.key_rule import KeyRule, KeySet, first_keys
from hotpool.core.generators.maximal_cliques import LanguageGraph, language_graph, language_sets
from hotpool.core.language_pairs import Pairs
from hotpool.core.model import NodeView

ANY: Final = "*"
_PAIR: Final = re.compile(PAIR_PATTERN)


class PairRule(KeyRule[Pairs]):
    """Keys `src-tgt`, and `*-tgt` for a source language detected later."""

    needs_pairs = True

    def __init__(self, rule: LanguagePairsRule, template: PoolTemplateSpec) -> None:
        super().__init__(_with_semantic(template) if rule.semantic else template)
        self._semantic = rule.semantic or _is_semantic(template)
        self._many_to_one = rule.many_to_one

    def _source(self, view: NodeView) -> Pairs:
        return view.semantic_pairs if self._semantic else view.pairs

    def offered(self, source: Pairs) -> KeySet:
        """Return the keys. `*` sorts before all letters, so that the bound on keys leaves out directed pairs first."""
        targets = (sys.intern(f"{ANY}-{target}") for target in sorted(source.targets) if self._many_to_one)
        return first_keys(chain(targets, source))

    def kind(self, key: str) -> GeneratedKind:
        """Return the kind of the key's pool."""
        return "ManyToOne" if key.startswith(ANY) else "LanguagePair"

    def is_valid_key(self, key: str) -> bool:
        """Return True if the rule can make a pool for this key."""
        source, _, target = key.partition("-")
        checked = key if source != ANY else f"x-{target}"
        return source != target and (source != ANY or self._many_to_one) and _PAIR.fullmatch(checked) is not None

    def requirements(self, key: str) -> Requirements:
        """Return the requirements of the template and of the rule."""
        return _with_pairs(self.template, [key], semantic=self._semantic)


class SetRule(KeyRule[Pairs]):
    """Keys `a+b+c`: languages that a node translates in all directions."""

    _kind = "LanguageSet"
    needs_pairs = True
    shared = True

    def __init__(self, rule: LanguageSetsRule, template: PoolTemplateSpec) -> None:
        super().__init__(template)
        self._semantic = _is_semantic(template)
        self._min_languages, self._max_languages = rule.min_languages, rule.max_languages
        self._graphs: WeakKeyDictionary[Pairs, LanguageGraph] = WeakKeyDictionary()

    def _source(self, view: NodeView) -> Pairs:
        return view.semantic_pairs if self._semantic else view.pairs

    def offered(self, source: Pairs) -> KeySet:
        """Return the keys that nodes with this source offer."""
        found = language_sets(self._graph(source), self._min_languages)
        return KeySet(frozenset(sys.intern("+".join(codes)) for codes in found.sets), truncated=found.truncated)

    def is_valid_key(self, key: str) -> bool:
        """Return True if the rule can make a pool for this key."""
        codes = key.split("+")
        valid = all(_PAIR.fullmatch(f"{code}-x") for code in codes)
        return valid and codes == sorted({*codes}) and self._min_languages <= len(codes) <= self._max_languages

    def requirements(self, key: str) -> Requirements:
        """Return the requirements of the template and of the rule."""
        pairs = (f"{source}-{target}" for source, target in permutations(key.split("+"), 2))
        return _with_pairs(self.template, pairs, semantic=self._semantic)

    def joins(self, source: Pairs, key: str) -> bool:
        """Return True if nodes with this source count for a key that others offer."""
        return self._graph(source).connects(_codes(key))

    def _graph(self, source: Pairs) -> LanguageGraph:
        """Return the cached graph. A hostile node with hundreds of languages is compared with each key of others."""
        graph = self._graphs.get(source)
        if graph is None:
            graph = self._graphs[source] = language_graph(source)
        return graph

    def refusal_reason(self, key: str) -> str | None:
        """Return the reason why an offered key gets no pool, or None."""
        return "MaxLanguages" if len(_codes(key)) > self._max_languages else None


def _with_pairs(template: PoolTemplateSpec, pairs: Iterable[str], *, semantic: bool) -> Requirements:
    own = template.requires.language_pairs
    every = tuple(dict.fromkeys((*(own.all_of if own else ()), *pairs)))
    required = LanguageRequirement(all_of=every, semantic=semantic)
    return template.requires.model_copy(update={"language_pairs": required})


@lru_cache(maxsize=16384)
def _codes(key: str) -> frozenset[str]:
    return frozenset(key.split("+"))


def _is_semantic(template: PoolTemplateSpec) -> bool:
    pairs = template.requires.language_pairs
    return pairs is not None and pairs.semantic


def _with_semantic(template: PoolTemplateSpec) -> PoolTemplateSpec:
    """Set `semantic` for the template's pairs, too, because a pool has one value for all its pairs."""
    pairs = template.requires.language_pairs
    if pairs is None:
        return template
    requires = template.requires.model_copy(update={"language_pairs": pairs.model_copy(update={"semantic": True})})
    return template.model_copy(update={"requires": requires})
