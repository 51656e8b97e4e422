"""Pools by the values of an attribute, and by a hash of the nodes' names (behaviour D5).

Made by `core.generators.generate`. Pure.
"""

import sys
from itertools import chain
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
from hotpool.core.generators.hashing import slot
from hotpool.core.generators.rules import KeyRule, Offered, first
from hotpool.core.judge import meets
from hotpool.core.model import NodeView

_LONGEST_VALUE: Final = 253


class ValueRule(KeyRule[frozenset[str]]):
    """The values of one attribute, of services that count and that meet what the template wants of their type."""

    def __init__(self, rule: AttributeValuesRule, template: PoolTemplateSpec) -> None:
        known = {item.type: item for item in template.requires.types}
        self._wanted = known.get(rule.type) or TypeRequirement(type=rule.type)
        self._key = rule.key
        types = tuple({**known, rule.type: self._wanted}.values())
        requires = template.requires.model_copy(update={"types": types})
        super().__init__(template.model_copy(update={"requires": requires}))

    def _source(self, view: NodeView) -> frozenset[str]:
        offers = view.node.report.offers.get(self._wanted.type, ()) if view.node.report else ()
        values = (
            offer.attributes.get(self._key, frozenset())
            for offer in offers
            if all(meets(offer, wanted) for wanted in self._wanted.attributes)
        )
        return frozenset(value for value in chain.from_iterable(values) if self.makes(value))

    def offered(self, source: frozenset[str]) -> Offered:
        """The keys."""
        return first(sorted(source))

    def kind(self, key: str) -> GeneratedKind:  # noqa: ARG002
        """Which kind of pool the key's is."""
        return "AttributeValue"

    def makes(self, key: str) -> bool:
        """Whether the rule makes pools of such a key at all."""
        return 1 <= len(key) <= _LONGEST_VALUE

    def requires(self, key: str) -> Requirements:
        """One and the same service has the value and what the template wants (behaviour D2)."""
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

    def offered(self, source: str) -> Offered:
        """The keys."""
        return Offered(frozenset((sys.intern(source),)))

    def kind(self, key: str) -> GeneratedKind:  # noqa: ARG002
        """Which kind of pool the key's is."""
        return "Hash"

    def makes(self, key: str) -> bool:
        """Whether the rule makes pools of such a key at all."""
        return key.isascii() and key.isdecimal() and str(int(key)) == key and int(key) < self._count

    def requires(self, key: str) -> Requirements:
        """The template's requirements and the rule's own."""
        wanted = HashRequirement(count=self._count, seed=self._seed, index=int(key))
        return self.template.requires.model_copy(update={"hash": wanted})
