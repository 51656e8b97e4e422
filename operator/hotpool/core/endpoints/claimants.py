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

    _rights: dict[str, int] = field(default_factory=dict)
    """Node → its right; the greater beats the smaller."""
    _first: tuple[tuple[int, str], ...] = ()
    """The first two: negative right and name."""

    def put(self, node: str, right: int | None) -> set[str]:
        """Set the right of a node (None: it claims no longer). Return the other nodes for which that may matter."""
        before = self._first
        if right is None:
            self._rights.pop(node, None)
        else:
            self._rights[node] = right
        if any(node == name for _, name in before):
            self._first = tuple(nsmallest(2, ((-value, name) for name, value in self._rights.items())))
        elif right is not None:
            self._first = tuple(sorted((*before, (-right, node)))[:2])
        return self._rights.keys() - {node} if self._first != before else set()

    def rival(self, node: str) -> Rival | None:
        """Return the node that keeps a claimant from the address, or None."""
        if len(self._first) == 1:
            return None
        (best, winner), (second, next_one) = self._first
        if node == winner:
            return Rival(next_one, equal=True) if best == second else None
        return Rival(winner, equal=-self._rights[node] == best)

    def __bool__(self) -> bool:
        """Return True while a node claims it."""
        return bool(self._rights)
