"""Services of a node that meet a pool (requirement E7): of each required type, those that its membership rests on.

A service meets the pool if it declares the attributes that its type requires, and if the node would offer the pool's
language pairs with this service as the only one of its type. Where no service offers all pairs, those that offer most
count. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from hotpool.api.pool import PoolTemplateSpec as Spec
from hotpool.core import languages
from hotpool.core.language_pairs import Pairs
from hotpool.core.matching import AttributeFilter, normalise_pair, offers_pair
from hotpool.core.model import Report, ServiceOffer

_LANGUAGE_TYPES: Final = frozenset({languages.ASR, languages.NMT, languages.TTS})


@dataclass(frozen=True, slots=True)
class ServiceFilter:
    """Requirements of a pool on single services."""

    types: tuple[str, ...]
    """Required types, in the order of the spec."""
    attributes: Mapping[str, tuple[AttributeFilter, ...]]
    pairs: tuple[str, ...]
    semantic: bool
    language_types: frozenset[str]
    """Required types whose services are compared by language pairs."""
    active: bool
    """True if a ready service of the required types may fail to meet the pool."""

    @classmethod
    def of(cls, spec: Spec) -> "ServiceFilter":
        """Compile the requirements of a spec."""
        required, types = spec.requires.language_pairs, spec.requires.types
        attributes = {item.type: tuple(map(AttributeFilter.of, item.attributes)) for item in types if item.attributes}
        names = tuple(dict.fromkeys(item.type for item in types))
        semantic = required is not None and required.semantic
        by_language = (_LANGUAGE_TYPES | ({languages.SEMANTIC} if semantic else set())) if required else frozenset()
        pairs = tuple(map(normalise_pair, required.all_of)) if required else ()
        compared = by_language & set(names)
        return cls(names, attributes, pairs, semantic, compared, active=bool(attributes or compared))

    def exceptions(self, report: Report, *, member: bool = True) -> tuple[str, ...] | None:
        """Return the ids of the services that meet the pool, or None if all ready ones of the required types do.

        `member`: the node matches the pool, so that a service that is the only one of its type meets it.
        """
        if not self.active or (member and _CACHE.several(report).isdisjoint(self.types)):
            return None
        offers = {type_: report.offers.get(type_, ()) for type_ in self.types}
        meeting = [offer for of_type in offers.values() for offer in self._meeting(report, of_type)]
        return None if len(meeting) == sum(map(len, offers.values())) else tuple(offer.service for offer in meeting)

    def _meeting(self, report: Report, offers: tuple[ServiceOffer, ...]) -> tuple[ServiceOffer, ...]:
        filters = self.attributes.get(offers[0].type, ()) if offers else ()
        found = tuple(offer for offer in offers if all(item.met(offer) for item in filters))
        if not found or found[0].type not in self.language_types:
            return found
        offered = [self._offered_pairs(report, offer) for offer in found]
        return tuple(offer for offer, number in zip(found, offered, strict=True) if number == max(offered))

    def _offered_pairs(self, report: Report, offer: ServiceOffer) -> int:
        pairs = _CACHE.pairs(report, offer, semantic=self.semantic)
        return sum(offers_pair(pairs, pair) for pair in self.pairs)


class _LastReportCache:
    """Facts of the most recent report, because many pools read one report in a row."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._several: frozenset[str] = frozenset()
        self._pairs: dict[tuple[str, bool], Pairs] = {}

    def several(self, report: Report) -> frozenset[str]:
        """Return the types of which several services are ready."""
        if report is not self._report:
            self._read(report)
        return self._several

    def _read(self, report: Report) -> None:
        self._report, self._pairs = report, {}
        self._several = frozenset(type_ for type_, offers in report.offers.items() if len(offers) > 1)

    def pairs(self, report: Report, offer: ServiceOffer, *, semantic: bool) -> Pairs:
        """Return the language pairs of the node with this service as the only one of its type."""
        if report is not self._report:
            self._read(report)
        key = offer.service, semantic
        if key not in self._pairs:
            alone = replace(report, offers={**report.offers, offer.type: (offer,)})
            self._pairs[key] = languages.pairs(alone, semantic=semantic)
        return self._pairs[key]


_CACHE: Final = _LastReportCache()
