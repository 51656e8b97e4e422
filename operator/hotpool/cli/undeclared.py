"""Words that a pool requires and no service of the fleet declares, which are often misspelt. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from hotpool.api.capability import Service
from hotpool.api.pool import AttributeRequirement
from hotpool.common.similar_names import similar_hint
from hotpool.core.model import Pool

_similar: Final = partial(similar_hint, cutoff=0.6)
_LANGUAGES: Final = "languages"
Declared = Mapping[str, Mapping[str, set[str]]]
"""Type → key of an attribute → declared values, also of services that do not run."""


def undeclared(pool: Pool, nodes: Iterable[Iterable[Service]]) -> tuple[str, ...]:
    """Return a sentence for each type, key and value that a pool requires and that no service declares.

    `nodes`: the reported services of each node, whatever their state. Nothing is said of a fleet without services.
    """
    declared = _declared(nodes)
    return tuple(_missing(pool, declared)) if declared else ()


def _missing(pool: Pool, declared: Declared) -> Iterator[str]:
    for required in pool.spec.requires.types:
        if required.type not in declared:
            yield f"no node has a service of type {required.type}{_similar(required.type, declared)}"
            continue
        for item in required.attributes:
            yield from _missing_words(required.type, item, declared[required.type])


def _missing_words(type_: str, required: AttributeRequirement, keys: Mapping[str, set[str]]) -> Iterator[str]:
    if required.key not in keys:
        others = _similar(required.key, keys) or f"; declared are {', '.join(sorted(keys)) or 'none'}"
        yield f"no {type_} service declares {required.key}{others}"
    elif required.key != _LANGUAGES:  # of which there are aliases
        for value in (*(required.any_of or ()), *(required.all_of or ())):
            if value not in keys[required.key]:
                yield f"no {type_} service declares {required.key} {value}{_similar(value, keys[required.key])}"


def _declared(nodes: Iterable[Iterable[Service]]) -> Declared:
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for service in (item for services in nodes for item in services):
        keys = found[service.type]
        for attribute in service.attributes:
            keys[attribute.key].update(attribute.values)
        for key, value in (("model", service.model), ("version", service.version), ("device", service.device)):
            if value:
                keys[key].add(value)
        if service.languages:
            keys[_LANGUAGES].update(service.languages)
    return found
