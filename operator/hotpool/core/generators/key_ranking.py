"""Order in which a generator admits keys (requirement D5): by number of nodes descending, then by name.

The cost of a change is that of the changed keys; the cost of a walk is that of the keys taken. Pure.
"""

import heapq
from collections import Counter
from collections.abc import Container, Iterator
from typing import Final

SORT_THRESHOLD: Final = 10_000
"""Number of keys up to which sorting is faster than walking the heap."""


class KeyRanking:
    """Keys ranked by the number of nodes that offer them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._ranks: dict[int, _Rank] = {}
        """Number of nodes → keys that this number of nodes offer."""

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, key: str, nodes: int) -> None:
        """Add this number of nodes, which may be negative, to a key."""
        before = self.counts.get(key, 0)
        after = before + nodes
        if before == after:
            return
        if before:
            self._ranks[before].discard(key)
            if not self._ranks[before].keys:
                del self._ranks[before]
        if after:
            self.counts[key] = after
            self._ranks.setdefault(after, _Rank()).add(key)
        else:
            self.counts.pop(key, None)

    def walk(self, without: Container[str] = ()) -> Iterator[tuple[str, int]]:
        """Yield keys and their number of nodes, by rank."""
        for nodes in sorted(self._ranks, reverse=True):
            for key in self._ranks[nodes].walk(without):
                yield key, nodes


class _Rank:
    """Keys of one rank. The heap also contains removed keys, until they outnumber the current ones."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._heap: list[str] = []

    def add(self, key: str) -> None:
        self.keys.add(key)
        heapq.heappush(self._heap, key)

    def discard(self, key: str) -> None:
        self.keys.discard(key)
        if len(self._heap) > 2 * len(self.keys) + 100:
            self._heap = list(self.keys)
            heapq.heapify(self._heap)

    def walk(self, without: Container[str]) -> Iterator[str]:
        """Yield the keys in order without changing the heap: a place is followed by the two below it."""
        if len(self.keys) <= SORT_THRESHOLD:
            yield from sorted(key for key in self.keys if key not in without)
            return
        last, next_ = None, [(self._heap[0], 0)]
        while next_:
            key, place = heapq.heappop(next_)
            for below in (2 * place + 1, 2 * place + 2):
                if below < len(self._heap):
                    heapq.heappush(next_, (self._heap[below], below))
            if key != last and key in self.keys and key not in without:
                yield key
            last = key
