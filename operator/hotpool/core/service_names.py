"""Pools that want a Service, by its name: of several pools, the oldest one has it (requirement D12). Pure."""

from collections import defaultdict
from dataclasses import dataclass, field

from hotpool.core.model import Pool


def service_name(pool: Pool) -> str | None:
    """Return the name of the Service that a pool wants, or None."""
    return (pool.spec.service.name or pool.meta.name) if pool.spec.service else None


@dataclass(slots=True)
class ServiceNames:
    """Claims of all pools to names of Services."""

    _claims: dict[str, dict[str, tuple[str, str]]] = field(default_factory=lambda: defaultdict(dict))
    """Name of a Service → pool → time of its creation, and its name."""

    def put(self, pool: Pool) -> set[str]:
        """Record what a pool wants. Return the other pools that want the same name."""
        name = service_name(pool)
        if name is None:
            return set()
        self._claims[name][pool.meta.name] = (pool.created, pool.meta.name)
        return self._claims[name].keys() - {pool.meta.name}

    def remove(self, pool: Pool) -> set[str]:
        """Forget a pool. Return the other pools that want the same name."""
        name = service_name(pool)
        if name is None:
            return set()
        self._claims[name].pop(pool.meta.name, None)
        others = set(self._claims[name])
        if not others:
            del self._claims[name]
        return others

    def holder(self, service: str) -> str | None:
        """Return the pool that has the name, or None if no pool wants it."""
        claims = self._claims.get(service)
        return min(claims.values())[1] if claims else None
