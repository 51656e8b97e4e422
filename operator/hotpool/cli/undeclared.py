"""Words that a pool requires and no service of the fleet declares, which are often misspelt. Pure."""

from collections.abc import Iterable

from hotpool.api.capability import Service
from hotpool.core.declared_words import DeclaredWords, service_words, undeclared_words
from hotpool.core.model import Pool


def undeclared(pool: Pool, nodes: Iterable[Iterable[Service]]) -> tuple[str, ...]:
    """Return a sentence for each type, key and value that a pool requires and that no service declares.

    `nodes`: the reported services of each node, whatever their state. Nothing is said of a fleet without services.
    """
    services = [service for of_node in nodes for service in of_node]
    declared = DeclaredWords()
    declared.replace(frozenset(), frozenset(map(service_words, services)))
    types = {service.type for service in services}
    found = undeclared_words(pool.spec.requires.types, types, declared.by_type) if services else ()
    return tuple(item.text for item in found)
