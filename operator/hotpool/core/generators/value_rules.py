"""Rules for pools by values of an attribute, and by a hash of node names (requirement D5).

Pure.
"""

import sys
from collections.abc import Iterable
from typing import Final

from hotpool.api.generator import AttributeValuesRule, HashRule
from hotpool.api.pool import (
    AttributeRequirement,
    HashRequirement,
    PoolTemplateSpec,
    Requirements,
    TypeRequirement,
)
from hotpool.common.hashing import slot
from hotpool.core.generators.key_rule import KeyRule, KeySet, first_keys
from hotpool.core.matching import AttributeFilter
from hotpool.core.model import NodeView, Report, ServiceOffer

_MAX_VALUE_LENGTH: Final = 253


class _LastReportCache:
    """Cache of attribute values of the most recent report, because several generators read one report in a row."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._values: dict[tuple[str, str, tuple[AttributeFilter, ...]], frozenset[str]] = {}

    def values_of(self, report: Report, type_: str, key: str, filters: tuple[AttributeFilter, ...]) -> frozenset[str]:
        """Return the values of an attribute that can be keys, of the type's services that pass all filters."""
        if report is not self._report:
            self._report, self._values = report, {}
        cached = self._values.get((type_, key, filters))
        if cached is None:
            cached = self._values[type_, key, filters] = _values_of(report.offers.get(type_, ()), key, filters)
        return cached


def _values_of(offers: Iterable[ServiceOffer], key: str, filters: tuple[AttributeFilter, ...]) -> frozenset[str]:
    matching = (offer for offer in offers if all(item.met(offer) for item in filters))
    values = frozenset().union(*(offer.attributes.get(key, frozenset()) for offer in matching))
    return frozenset(filter(_is_valid_value, values))


_CACHE: Final = _LastReportCache()


def _is_valid_value(value: str) -> bool:
    return 1 <= len(value) <= _MAX_VALUE_LENGTH


class ValueRule(KeyRule[frozenset[str]]):
    """Rule with a key for each value of one attribute.

    A value counts if a ready service declares it and meets what the pool template requires of services of its type,
    an endpoint included.
    """

    _kind = "AttributeValue"

    def __init__(self, rule: AttributeValuesRule, template: PoolTemplateSpec) -> None:
        known = {item.type: item for item in template.requires.types}
        self._required = known.get(rule.type) or TypeRequirement(type=rule.type)
        self._key = rule.key
        self._filters = tuple(AttributeFilter.of(attribute) for attribute in self._required.attributes)
        types = tuple({**known, rule.type: self._required}.values())
        requires = template.requires.model_copy(update={"types": types})
        super().__init__(template.model_copy(update={"requires": requires}))

    def _source(self, view: NodeView) -> frozenset[str]:
        report, type_ = view.node.report, self._required.type
        if report is None:
            return frozenset()
        if self.template.requires.endpoint == "Required":
            offers = (offer for offer in report.offers.get(type_, ()) if offer.service in view.endpoints)
            return _values_of(offers, self._key, self._filters)
        return _CACHE.values_of(report, type_, self._key, self._filters)

    def offered(self, source: frozenset[str]) -> KeySet:
        """Return the keys that nodes with this source offer."""
        return first_keys(sorted(source))

    def is_valid_key(self, key: str) -> bool:
        """Return True if the rule can make a pool for this key."""
        return _is_valid_value(key)

    def requirements(self, key: str) -> Requirements:
        """Return requirements by which one service has the value and meets the template (requirement D2)."""
        known = {item.key: item for item in self._required.attributes}
        before = known.get(self._key)
        values = tuple(dict.fromkeys((*((before and before.all_of) or ()), key)))
        known[self._key] = AttributeRequirement(key=self._key, any_of=before.any_of if before else None, all_of=values)
        required = self._required.model_copy(update={"attributes": tuple(known.values())})
        types = (required if item.type == required.type else item for item in self.template.requires.types)
        return self.template.requires.model_copy(update={"types": tuple(types)})


class HashSlotRule(KeyRule[str]):
    """Keys `0` to `count - 1`: buckets of nodes by a hash of their names."""

    _kind = "Hash"

    def __init__(self, rule: HashRule, template: PoolTemplateSpec) -> None:
        super().__init__(template)
        self._count, self._seed = rule.count, rule.seed

    def _source(self, view: NodeView) -> str:
        return str(slot(view.node.meta.name, self._seed, self._count))

    def offered(self, source: str) -> KeySet:
        """Return the keys that nodes with this source offer."""
        return KeySet(frozenset((sys.intern(source),)))

    def is_valid_key(self, key: str) -> bool:
        """Return True if the rule can make a pool for this key."""
        return key.isascii() and key.isdecimal() and str(int(key)) == key and int(key) < self._count

    def requirements(self, key: str) -> Requirements:
        """Return the requirements of the template and of the rule."""
        required = HashRequirement(count=self._count, seed=self._seed, index=int(key))
        return self.template.requires.model_copy(update={"hash": required})
