"""The nodes' Leases as last seen, and which of them nobody renews any more (requirements C2, C4).

Held by `core.cluster_cache`. Pure: all times are monotonic seconds.
"""

from collections.abc import Container
from dataclasses import dataclass, field, replace

from hotpool.core.liveness import EXPIRED_AFTER
from hotpool.core.model import Heartbeat


@dataclass(slots=True)
class LeaseCache:
    """Node → its Lease."""

    _leases: dict[str, Heartbeat] = field(default_factory=dict)
    """Without uid where the Lease is not there any more."""
    _without_node: dict[str, tuple[Heartbeat, float]] = field(default_factory=dict)
    """Node that has no resource → its Lease, and since when it is known to be as it is."""
    orphaned: set[str] = field(default_factory=set)
    """Nodes of which nothing is left but a Lease that nobody renews, as of the last look."""

    def get(self, node: str) -> Heartbeat | None:
        """The Lease as last seen; its deletion is not told, because it is no evidence (requirement C7)."""
        return self._leases.get(node)

    def put(self, beat: Heartbeat) -> Heartbeat | None:
        """Take in a Lease; the one that was known before."""
        before = self._leases.get(beat.node)
        self.orphaned.discard(beat.node)
        self._leases[beat.node] = beat
        return before

    def delete(self, lease: Heartbeat) -> None:
        """This Lease was deleted by us, unless there is a newer one; told of once more it is no heartbeat (C2)."""
        if self._leases.get(lease.node) == lease:
            self._leases[lease.node] = replace(lease, uid="")
            self.orphaned.discard(lease.node)

    def scan(self, nodes: Container[str], now: float) -> set[str]:
        """Find the abandoned: without a resource, and the same Lease at each look for 600 s. To be called at times."""
        alone = {name: beat for name, beat in self._leases.items() if name not in nodes}
        for name in [name for name, beat in alone.items() if not beat.uid]:
            del self._leases[name], alone[name]
        self._without_node = {name: self._since(name, beat, now) for name, beat in alone.items()}
        self.orphaned = {name for name, (_, since) in self._without_node.items() if now - since >= EXPIRED_AFTER}
        return self.orphaned

    def _since(self, name: str, beat: Heartbeat, now: float) -> tuple[Heartbeat, float]:
        known = self._without_node.get(name)
        return known if known and known[0] == beat else (beat, now)
