"""Stored slices by the pools that must repair or delete them (requirement D10). Pure."""

from typing import Final

from hotpool.core.model import Slice

MAX_TERM: Final = 2**30
"""Largest credible term: no leader wrote a slice with a larger one, and a Lease could not count beyond it."""


class SliceIndex(dict[str, dict[str, Slice]]):
    """Pool name → slice name → slice; empty for a pool without slices."""

    def __init__(self) -> None:
        super().__init__()
        self.largest_term = 0
        """Largest credible term of all observed slices."""
        self._pools: dict[str, tuple[str, ...]] = {}

    def __missing__(self, pool: str) -> dict[str, Slice]:
        """Return no slices."""
        return {}

    def put(self, slice_: Slice) -> set[str]:
        """Store a slice under each of its pools. Return these, and those of its former version."""
        if slice_.term <= MAX_TERM:
            self.largest_term = max(self.largest_term, slice_.term)
        name = slice_.meta.name
        before = self.discard(name)
        for pool in slice_.pools:
            self.setdefault(pool, {})[name] = slice_
        self._pools[name] = slice_.pools
        return before | {*slice_.pools}

    def discard(self, name: str) -> set[str]:
        """Remove a slice. Return its pools."""
        pools = self._pools.pop(name, ())
        for pool in pools:
            del self[pool][name]
            if not self[pool]:
                del self[pool]
        return {*pools}
