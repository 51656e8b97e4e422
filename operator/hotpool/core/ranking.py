"""Keys in the order in which a generator admits them (behaviour D5): by distinct nodes descending, then by name.

Kept by `core.offers`, walked by `core.generate`. A change of one node costs its keys and not all keys; a walk costs
what is taken of it. Pure.
"""

import heapq
from collections import Counter
from collections.abc import Container, Iterator


class Ranking:
    """How many nodes offer each key."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._keys: dict[int, set[str]] = {}
        """Number of nodes → the keys that so many offer."""

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, key: str, nodes: int) -> None:
        """So many nodes more (or fewer) offer the key."""
        before = self.counts.get(key, 0)
        after = before + nodes
        if before == after:
            return
        if before:
            self._leave(key, before)
        if after:
            self.counts[key] = after
            self._keys.setdefault(after, set()).add(key)
        else:
            self.counts.pop(key, None)

    def _leave(self, key: str, nodes: int) -> None:
        keys = self._keys[nodes]
        keys.discard(key)
        if not keys:
            del self._keys[nodes]

    def walk(self, without: Container[str] = ()) -> Iterator[tuple[str, int]]:
        """Keys and their nodes, best first."""
        for nodes in sorted(self._keys, reverse=True):
            heap = [key for key in self._keys[nodes] if key not in without]
            heapq.heapify(heap)
            while heap:
                yield heapq.heappop(heap), nodes
