"""Pools by language: directed pairs, many-to-one, sets (requirement D5).

Made by `core.generators.admission`. Pure.
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
from hotpool.core.model import NodeView
from hotpool.core.pairs import Pairs

ANY: Final = "*"
_PAIR: Final = re.compile(PAIR_PATTERN)


class PairRule(KeyRule[Pairs]):
    """`src-tgt`, and `*-tgt` for sources detected later."""

    needs_pairs = True

    def __init__(self, rule: LanguagePairsRule, template: PoolTemplateSpec) -> None:
        super().__init__(_with_semantic(template) if rule.semantic else template)
        self._semantic = rule.semantic or _is_semantic(template)
        self._many_to_one = rule.many_to_one

    def _source(self, view: NodeView) -> Pairs:
        return view.semantic_pairs if self._semantic else view.pairs

    def offered(self, source: Pairs) -> KeySet:
        """`*` sorts before all letters: the cap leaves out pairs first."""
        targets = (sys.intern(f"{ANY}-{target}") for target in sorted(source.targets) if self._many_to_one)
        return first_keys(chain(targets, source))

    def kind(self, key: str) -> GeneratedKind:
        """Which kind of pool the key's is."""
        return "ManyToOne" if key.startswith(ANY) else "LanguagePair"

    def is_valid_key(self, key: str) -> bool:
        """Whether the rule makes pools of such a key at all."""
        source, _, target = key.partition("-")
        named = key if source != ANY else f"x-{target}"
        return source != target and (source != ANY or self._many_to_one) and _PAIR.fullmatch(named) is not None

    def requirements(self, key: str) -> Requirements:
        """The template's requirements and the rule's own."""
        return _with_pairs(self.template, [key], semantic=self._semantic)


class SetRule(KeyRule[Pairs]):
    """`a+b+c`: languages that nodes translate in all directions."""

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
        """The keys."""
        sets = language_sets(self._graph(source), self._min_languages)
        return KeySet(frozenset(sys.intern("+".join(codes)) for codes in sets.sets), truncated=sets.truncated)

    def kind(self, key: str) -> GeneratedKind:  # noqa: ARG002
        """Which kind of pool the key's is."""
        return "LanguageSet"

    def is_valid_key(self, key: str) -> bool:
        """Whether the rule makes pools of such a key at all."""
        codes = key.split("+")
        named = all(_PAIR.fullmatch(f"{code}-x") for code in codes)
        return named and codes == sorted({*codes}) and self._min_languages <= len(codes) <= self._max_languages

    def requirements(self, key: str) -> Requirements:
        """The template's requirements and the rule's own."""
        pairs = (f"{source}-{target}" for source, target in permutations(key.split("+"), 2))
        return _with_pairs(self.template, pairs, semantic=self._semantic)

    def joins(self, source: Pairs, key: str) -> bool:
        """Whether a node counts for a key that others offer."""
        return self._graph(source).connects(_codes(key))

    def _graph(self, source: Pairs) -> LanguageGraph:
        """Made once for each value: a hostile node has hundreds of languages, and is asked for each key of others."""
        known = self._graphs.get(source)
        if known is None:
            known = self._graphs[source] = language_graph(source)
        return known

    def refusal_reason(self, key: str) -> str | None:
        """Why no pool is made of a key that nodes offer."""
        return "MaxLanguages" if len(_codes(key)) > self._max_languages else None


def _with_pairs(template: PoolTemplateSpec, pairs: Iterable[str], *, semantic: bool) -> Requirements:
    known = template.requires.language_pairs
    wanted = tuple(dict.fromkeys((*(known.all_of if known else ()), *pairs)))
    required = LanguageRequirement(all_of=wanted, semantic=semantic)
    return template.requires.model_copy(update={"language_pairs": required})


@lru_cache(maxsize=16384)
def _codes(key: str) -> frozenset[str]:
    return frozenset(key.split("+"))


def _is_semantic(template: PoolTemplateSpec) -> bool:
    pairs = template.requires.language_pairs
    return pairs is not None and pairs.semantic


def _with_semantic(template: PoolTemplateSpec) -> PoolTemplateSpec:
    """A pool has one `semantic` for all its pairs: where the rule asks for it, it holds for the template's too."""
    pairs = template.requires.language_pairs
    if pairs is None:
        return template
    requires = template.requires.model_copy(update={"language_pairs": pairs.model_copy(update={"semantic": True})})
    return template.model_copy(update={"requires": requires})
