"""Nodes that claim one address and port, and who gets it. Pure."""

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final

from hotpool.core.address_problems import SEVERAL_NODES

_SLACK: Final = 16
"""Outdated entries of a heap that are tolerated beside as many as there are valid ones."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Node that keeps another one from an address and port."""

    node: str
    equal: bool | None
    """True: its right is no better, so that neither gets it."""


SEVERAL: Final = Rival(SEVERAL_NODES, equal=None)
"""Rivals of all claimants but the first two. They are not named: another first one would change thousands of nodes."""


@dataclass(slots=True)
class Claimants:
    """Claimants of one address and port. A node without a rival gets it.

    The first two by right and name decide for all, so that a change affects no node but these, however many there are.
    """

    _first: tuple[tuple[int, str], ...] = ()
    """The first two: negative right and name."""
    _rest: dict[str, int] = field(default_factory=dict)
    """Other node → its negative right."""
    _order: list[tuple[int, str]] = field(default_factory=list)
    """Heap of the others, and of entries that `_rest` no longer has."""

    def put(self, node: str, right: int | None) -> set[str]:
        """Set the right of a node (None: it claims no longer). Return the other nodes for which that may matter."""
        before = self._first
        self._rest.pop(node, None)
        candidates = [item for item in before if item[1] != node]
        if len(candidates) < len(before):
            candidates += self._take_best()
        if right is not None:
            candidates.append((-right, node))
        candidates.sort()
        self._first = tuple(candidates[:2])
        for item in candidates[2:]:
            self._add(*item)
        return {name for _, name in (*before, *self._first)} - {node} if self._first != before else set()

    def rival(self, node: str) -> Rival | None:
        """Return what keeps a claimant from the address, or None."""
        if len(self._first) == 1:
            return None
        (best, winner), (second, next_one) = self._first
        if node == winner:
            return Rival(next_one, equal=True) if best == second else None
        return Rival(winner, equal=second == best) if node == next_one else SEVERAL

    def __bool__(self) -> bool:
        """Return True while a node claims it."""
        return bool(self._first)

    def _add(self, value: int, node: str) -> None:
        self._rest[node] = value
        heappush(self._order, (value, node))
        if len(self._order) > 2 * len(self._rest) + _SLACK:
            self._order = [(value, name) for name, value in self._rest.items()]
            heapify(self._order)

    def _take_best(self) -> list[tuple[int, str]]:
        """Remove the best of the others. Return it, or nothing."""
        while self._order:
            value, name = heappop(self._order)
            if self._rest.get(name) == value:
                del self._rest[name]
                return [(value, name)]
        return []
