"""Which pools each generator owns, and which generators a change of a pool matters to (requirement D5).

Kept by `core.cluster_cache`. By owner references, never by names; names only tell whom to ask. Pure.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.model import Pool

_NONE: Final[Mapping[str, Pool]] = MappingProxyType({})


class OwnerIndex:
    """Pools by the uid of the generator that owns them."""

    def __init__(self) -> None:
        self._pools: dict[str, dict[str, Pool]] = {}

    def put(self, pool: Pool) -> None:
        """A pool as it is now; one of its name that was known before must be dropped if its owner is another."""
        if pool.owner:
            self._pools.setdefault(pool.owner, {})[pool.meta.name] = pool

    def drop(self, pool: Pool) -> None:
        """A pool is gone, or changes its owner."""
        owned = self._pools.get(pool.owner or "", {})
        owned.pop(pool.meta.name, None)
        if not owned:
            self._pools.pop(pool.owner or "", None)

    def pools_of(self, uid: str) -> Mapping[str, Pool]:
        """The pools of one generator by name."""
        return self._pools.get(uid, _NONE)


def affected_generators(pool: Pool, generators: Mapping[str, GeneratorEntry]) -> set[str]:
    """The generators that made a pool, own it, or would give its name to a pool of theirs."""
    made = pool.spec.generated
    by = {name for name in _prefixes(pool.meta.name) if name in generators}
    by |= {name for name, known in generators.items() if known.generator.meta.uid == pool.owner}
    return by | {made.by} if made else by


def changes_ownership(before: Pool, after: Pool) -> bool:
    """Whether a change that left the spec as it was can matter to the generator: most changes are of the status."""
    return _ownership_inputs(before) != _ownership_inputs(after)


def _ownership_inputs(pool: Pool) -> tuple[object, ...]:
    return pool.owner, pool.paused, pool.problem, bool(pool.status.members)


def _prefixes(name: str) -> Iterator[str]:
    return (name[:end] for end, letter in enumerate(name) if letter == "-")
