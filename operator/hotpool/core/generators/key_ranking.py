"""Keys in the order in which a generator admits them (requirement D5): by distinct nodes descending, then by name.

A change of one node costs its keys and not all
keys; a walk costs what is taken of it. Pure.
"""

import heapq
from collections import Counter
from collections.abc import Container, Iterator
from typing import Final

SORT_THRESHOLD: Final = 10_000
"""Keys that are looked through faster than a heap is walked."""


class KeyRanking:
    """How many nodes offer each key."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._ranks: dict[int, _Rank] = {}
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
            self._ranks[before].discard(key)
            if not self._ranks[before].keys:
                del self._ranks[before]
        if after:
            self.counts[key] = after
            self._ranks.setdefault(after, _Rank()).add(key)
        else:
            self.counts.pop(key, None)

    def walk(self, without: Container[str] = ()) -> Iterator[tuple[str, int]]:
        """Keys and their nodes, best first."""
        for nodes in sorted(self._ranks, reverse=True):
            for key in self._ranks[nodes].walk(without):
                yield key, nodes


class _Rank:
    """Keys of one rank. The heap also holds keys that have left, until they are more than those that are there."""

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
        """The keys in order, without a change of the heap: after a place come the two below it."""
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
