"""Pools by the values of an attribute, and by a hash of the nodes' names (requirement D5).

Made by `core.generators.admission`. Pure.
"""

import sys
from typing import Final

from hotpool.api.generator import AttributeValuesRule, HashRule
from hotpool.api.pool import (
    AttributeRequirement,
    GeneratedKind,
    HashRequirement,
    PoolTemplateSpec,
    Requirements,
    TypeRequirement,
)
from hotpool.common.hashing import slot
from hotpool.core.generators.key_rule import KeyRule, KeySet, first_keys
from hotpool.core.matching import AttributeFilter
from hotpool.core.model import NodeView, Report

_MAX_VALUE_LENGTH: Final = 253


class _LastReportCache:
    """The values in the report asked about last: of one node that has thousands, any number of generators ask."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._known: dict[tuple[str, str, tuple[AttributeFilter, ...]], frozenset[str]] = {}

    def of(self, report: Report, type_: str, key: str, asked: tuple[AttributeFilter, ...]) -> frozenset[str]:
        """The values of one attribute that can be keys, of the type's services that have what is asked for."""
        if report is not self._report:
            self._report, self._known = report, {}
        found = self._known.get((type_, key, asked))
        if found is None:
            offers = report.offers.get(type_, ())
            able = (offer for offer in offers if all(wanted.met(offer) for wanted in asked))
            values = frozenset().union(*(offer.attributes.get(key, frozenset()) for offer in able))
            found = self._known[type_, key, asked] = frozenset(filter(_is_valid_value, values))
        return found


_CACHE: Final = _LastReportCache()


def _is_valid_value(value: str) -> bool:
    return 1 <= len(value) <= _MAX_VALUE_LENGTH


class ValueRule(KeyRule[frozenset[str]]):
    """The values of one attribute, of services that count and that meet what the template wants of their type."""

    def __init__(self, rule: AttributeValuesRule, template: PoolTemplateSpec) -> None:
        known = {item.type: item for item in template.requires.types}
        self._wanted = known.get(rule.type) or TypeRequirement(type=rule.type)
        self._key = rule.key
        self._asked = tuple(AttributeFilter.of(attribute) for attribute in self._wanted.attributes)
        types = tuple({**known, rule.type: self._wanted}.values())
        requires = template.requires.model_copy(update={"types": types})
        super().__init__(template.model_copy(update={"requires": requires}))

    def _source(self, view: NodeView) -> frozenset[str]:
        report = view.node.report
        return _CACHE.of(report, self._wanted.type, self._key, self._asked) if report else frozenset()

    def offered(self, source: frozenset[str]) -> KeySet:
        """The keys."""
        return first_keys(sorted(source))

    def kind(self, key: str) -> GeneratedKind:  # noqa: ARG002
        """Which kind of pool the key's is."""
        return "AttributeValue"

    def is_valid_key(self, key: str) -> bool:
        """Whether the rule makes pools of such a key at all."""
        return _is_valid_value(key)

    def requirements(self, key: str) -> Requirements:
        """One and the same service has the value and what the template wants (requirement D2)."""
        known = {item.key: item for item in self._wanted.attributes}
        before = known.get(self._key)
        values = tuple(dict.fromkeys((*((before and before.all_of) or ()), key)))
        known[self._key] = AttributeRequirement(key=self._key, any_of=before.any_of if before else None, all_of=values)
        wanted = self._wanted.model_copy(update={"attributes": tuple(known.values())})
        types = (wanted if item.type == wanted.type else item for item in self.template.requires.types)
        return self.template.requires.model_copy(update={"types": tuple(types)})


class HashSlotRule(KeyRule[str]):
    """`0` to `count - 1`: parts of the nodes by a hash of their names."""

    def __init__(self, rule: HashRule, template: PoolTemplateSpec) -> None:
        super().__init__(template)
        self._count, self._seed = rule.count, rule.seed

    def _source(self, view: NodeView) -> str:
        return str(slot(view.node.meta.name, self._seed, self._count))

    def offered(self, source: str) -> KeySet:
        """The keys."""
        return KeySet(frozenset((sys.intern(source),)))

    def kind(self, key: str) -> GeneratedKind:  # noqa: ARG002
        """Which kind of pool the key's is."""
        return "Hash"

    def is_valid_key(self, key: str) -> bool:
        """Whether the rule makes pools of such a key at all."""
        return key.isascii() and key.isdecimal() and str(int(key)) == key and int(key) < self._count

    def requirements(self, key: str) -> Requirements:
        """The template's requirements and the rule's own."""
        wanted = HashRequirement(count=self._count, seed=self._seed, index=int(key))
        return self.template.requires.model_copy(update={"hash": wanted})
