"""Attributes that the services of a fleet declare, and what requirements name although no service declares it (D2).

Pure.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

from hotpool.api.capability import Service
from hotpool.api.pool import AttributeRequirement, TypeRequirement
from hotpool.common.similar_names import similar_hint
from hotpool.core.lists_of_words import listed

ServiceWords = frozenset[tuple[str, str, str]]
"""Type, key and value of each attribute of one service. For each key, also one with an empty value."""
Declared = Mapping[str, Mapping[str, Collection[str]]]
"""Type → key of an attribute → declared values, also of services that do not run."""

_LANGUAGES: Final = "languages"
_LEAST_SIMILARITY: Final = 0.6
_MAX_COMPARED: Final = 100
"""Of more names, a search of similar ones would hold up the operator's event loop."""
_MAX_KEYS: Final = 10
"""Keys named in a message; of the others it has the number."""


def service_words(service: Service) -> ServiceWords:
    """Return the declared words of one service. The values of languages have aliases and are left out."""
    attributes = [(item.key, item.values if item.key != _LANGUAGES else ()) for item in service.attributes]
    own = (("model", service.model), ("version", service.version), ("device", service.device))
    attributes += [(key, (value,)) for key, value in own if value]
    if service.languages:
        attributes.append((_LANGUAGES, ()))
    return _words(service.type, tuple(attributes))


@lru_cache(maxsize=256)
def _words(type_: str, attributes: tuple[tuple[str, tuple[str, ...]], ...]) -> ServiceWords:
    """Return the words. Cached: the services of a fleet have few different attributes, and share the value."""
    return frozenset((type_, key, value) for key, values in attributes for value in ("", *values))


@dataclass(slots=True)
class DeclaredWords:
    """Words of all services of a fleet, counted."""

    by_type: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    """Type → key → value → number of different sets of words that have it."""
    _services: Counter[ServiceWords] = field(default_factory=Counter)

    def replace(self, before: frozenset[ServiceWords], after: frozenset[ServiceWords]) -> set[str]:
        """Replace the words of one node. Return the types of which a word is new, or no longer declared."""
        changed: set[str] = set()
        for words in after - before:
            self._services[words] += 1
            if self._services[words] == 1:
                changed.update(filter(None, map(self._add, words)))
        for words in before - after:
            self._services[words] -= 1
            if not self._services[words]:
                del self._services[words]
                changed.update(filter(None, map(self._remove, words)))
        return changed

    def _add(self, word: tuple[str, str, str]) -> str:
        """Count a word. Return its type if it is new, else nothing."""
        type_, key, value = word
        values = self.by_type.setdefault(type_, {}).setdefault(key, Counter())
        values[value] += 1
        return type_ if values[value] == 1 else ""

    def _remove(self, word: tuple[str, str, str]) -> str:
        """Count a word no longer. Return its type if it was the last one, else nothing."""
        type_, key, value = word
        keys = self.by_type[type_]
        keys[key][value] -= 1
        if keys[key][value]:
            return ""
        del keys[key][value]
        if not keys[key]:
            del keys[key]
        if not keys:
            del self.by_type[type_]
        return type_


@dataclass(frozen=True, slots=True)
class Undeclared:
    """A required word that no service declares."""

    reason: Literal["UnknownType", "UnknownAttribute", "UnknownValue"]
    _sentence: str
    _word: str
    _known: Collection[str]

    @property
    def text(self) -> str:
        """The sentence for people, with similar words, or else with the declared keys."""
        known = sorted(word for word in self._known if word and word.isprintable())
        similar = similar_hint(self._word, known, _LEAST_SIMILARITY) if len(known) <= _MAX_COMPARED else ""
        if similar or self.reason != "UnknownAttribute":
            return f"{self._sentence}{similar}"
        return f"{self._sentence}; declared are {listed(known, _MAX_KEYS) or 'none'}"


def undeclared_words(
    required: Iterable[TypeRequirement], types: Collection[str], declared: Declared
) -> Iterator[Undeclared]:
    """Yield each type, key and value that is required although no service has it, in order. `types`: known ones."""
    for item in required:
        if item.type not in types:
            yield Undeclared("UnknownType", f"no node has a service of type {item.type}", item.type, types)
            continue
        for attribute in item.attributes:
            yield from undeclared_key(item.type, attribute.key, declared) or _values(item.type, attribute, declared)


def undeclared_key(type_: str, key: str, declared: Declared) -> tuple[Undeclared, ...]:
    """Return the key of an attribute if no service of a type declares it, else nothing."""
    keys = declared.get(type_, {})
    text = f"no {type_} service declares {key}"
    return () if key in keys else (Undeclared("UnknownAttribute", text, key, keys),)


def _values(type_: str, required: AttributeRequirement, declared: Declared) -> Iterator[Undeclared]:
    if required.key == _LANGUAGES:
        return
    values = declared[type_][required.key]
    for value in (*(required.any_of or ()), *(required.all_of or ())):
        if value not in values:
            yield Undeclared("UnknownValue", f"no {type_} service declares {required.key} {value}", value, values)
