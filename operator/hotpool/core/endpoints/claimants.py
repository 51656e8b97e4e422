"""Nodes that claim one address and port, and who gets it. Pure."""

from dataclasses import dataclass, field
from heapq import nsmallest


@dataclass(frozen=True, slots=True)
class Rival:
    """Node that keeps another one from an address and port."""

    node: str
    equal: bool
    """True: its right is no better, so that neither gets it."""


@dataclass(slots=True)
class Claimants:
    """Claimants of one address and port. A node without a rival gets it.

    The first two by right and name decide for all, so that a change which leaves these two affects no other node.
    """

    _first: tuple[tuple[int, str], ...] = ()
    """The first two: negative right and name."""
    _rest: dict[str, int] = field(default_factory=dict)
    """Other node → its right; the greater beats the smaller."""

    def put(self, node: str, right: int | None) -> set[str]:
        """Set the right of a node (None: it claims no longer). Return the other nodes for which that may matter."""
        before = self._first
        self._rest.pop(node, None)
        candidates = [item for item in before if item[1] != node]
        if len(candidates) < len(before):
            candidates += [(-value, name) for name, value in self._rest.items()]
        if right is not None:
            candidates.append((-right, node))
        self._first = tuple(nsmallest(2, candidates))
        self._rest |= {name: -value for value, name in candidates}
        for _, name in self._first:
            self._rest.pop(name, None)
        return {*self._rest, *(name for _, name in self._first)} - {node} if self._first != before else set()

    def rival(self, node: str) -> Rival | None:
        """Return the node that keeps a claimant from the address, or None."""
        if len(self._first) == 1:
            return None
        (best, winner), (second, next_one) = self._first
        if node == winner:
            return Rival(next_one, equal=True) if best == second else None
        own = second if node == next_one else -self._rest[node]
        return Rival(winner, equal=own == best)

    def __bool__(self) -> bool:
        """Return True while a node claims it."""
        return bool(self._first)
