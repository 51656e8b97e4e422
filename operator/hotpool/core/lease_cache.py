"""The last observed Leases of nodes, and orphaned ones (requirements C2, C4).

Pure: all times are monotonic seconds.
"""

from collections.abc import Container
from dataclasses import dataclass, field, replace

from hotpool.core.model import Heartbeat
from hotpool.core.node_liveness import EXPIRED_AFTER


@dataclass(slots=True)
class LeaseCache:
    """Leases by node."""

    _leases: dict[str, Heartbeat] = field(default_factory=dict)
    """Node → its Lease; with an empty uid after we deleted it."""
    _without_node: dict[str, tuple[Heartbeat, float]] = field(default_factory=dict)
    """Node without a NodeCapability → its Lease, and the time since which the Lease has not changed."""
    orphaned: set[str] = field(default_factory=set)
    """Nodes without a NodeCapability whose Lease is not renewed, as of the last `scan`."""

    def get(self, node: str) -> Heartbeat | None:
        """Return the last observed Lease. It stays after a deletion by others: that is no evidence (C7)."""
        return self._leases.get(node)

    def put(self, lease: Heartbeat) -> Heartbeat | None:
        """Store a Lease. Return the previous one."""
        before = self._leases.get(lease.node)
        self.orphaned.discard(lease.node)
        self._leases[lease.node] = lease
        return before

    def delete(self, lease: Heartbeat) -> None:
        """Record our deletion of this Lease, unless a newer one is known. A late event of it is no heartbeat (C2)."""
        if self._leases.get(lease.node) == lease:
            self._leases[lease.node] = replace(lease, uid="")
            self.orphaned.discard(lease.node)

    def scan(self, nodes: Container[str], now: float) -> set[str]:
        """Find orphaned Leases: no NodeCapability, and no change between scans for 600 s. Needs regular calls."""
        alone = {name: lease for name, lease in self._leases.items() if name not in nodes}
        for name in [name for name, lease in alone.items() if not lease.uid]:
            del self._leases[name], alone[name]
        self._without_node = {name: self._since(name, lease, now) for name, lease in alone.items()}
        self.orphaned = {name for name, (_, since) in self._without_node.items() if now - since >= EXPIRED_AFTER}
        return self.orphaned

    def _since(self, name: str, lease: Heartbeat, now: float) -> tuple[Heartbeat, float]:
        known = self._without_node.get(name)
        return known if known and known[0] == lease else (lease, now)
