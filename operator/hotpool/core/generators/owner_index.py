"""Pools by owning generator, and generators affected by a change of a pool (requirement D5).

Owner references decide on ownership, never names. A name only marks a generator for a check. Pure.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.model import Pool

_NONE: Final[Mapping[str, Pool]] = MappingProxyType({})


class OwnerIndex:
    """Pools by the uid of their owning generator."""

    def __init__(self) -> None:
        self._pools: dict[str, dict[str, Pool]] = {}

    def put(self, pool: Pool) -> None:
        """Store a pool. If its owner changed, the former version must be dropped first."""
        if pool.owner:
            self._pools.setdefault(pool.owner, {})[pool.meta.name] = pool

    def drop(self, pool: Pool) -> None:
        """Remove a pool that was deleted or gets another owner."""
        owned = self._pools.get(pool.owner or "", {})
        owned.pop(pool.meta.name, None)
        if not owned:
            self._pools.pop(pool.owner or "", None)

    def pools_of(self, uid: str) -> Mapping[str, Pool]:
        """Return the pools of one generator by name."""
        return self._pools.get(uid, _NONE)


def affected_generators(pool: Pool, generators: Mapping[str, GeneratorEntry]) -> set[str]:
    """Return the generators that made a pool, own it, or could give a pool of theirs the same name."""
    generated = pool.spec.generated
    affected = {name for name in _prefixes(pool.meta.name) if name in generators}
    affected |= {name for name, known in generators.items() if known.generator.meta.uid == pool.owner}
    return affected | {generated.by} if generated else affected


def changes_ownership(before: Pool, after: Pool) -> bool:
    """Return True if a change other than of the spec can affect the generator; most changes of the status cannot."""
    return _ownership_inputs(before) != _ownership_inputs(after)


def _ownership_inputs(pool: Pool) -> tuple[object, ...]:
    return pool.owner, pool.paused, pool.problem, bool(pool.status.members)


def _prefixes(name: str) -> Iterator[str]:
    return (name[:end] for end, letter in enumerate(name) if letter == "-")
