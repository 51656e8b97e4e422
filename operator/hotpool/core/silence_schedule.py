"""Times at which the silence of nodes is looked at again (requirement C3). Pure; all times are monotonic seconds."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hotpool.core.node_liveness import NodeLivenessTracker


@dataclass(slots=True)
class SilenceSchedule:
    """Nodes by the time of their next change by silence alone."""

    _due: list[tuple[float, str]] = field(default_factory=list)
    _unconfirmed: set[str] = field(default_factory=set)
    """Nodes whose silence counts only once the Lease watch is known to be complete until a later time."""
    _confirmed_until: float = 0.0

    def add(self, name: str, tracker: NodeLivenessTracker) -> None:
        """Schedule a node's next look. Later heartbeats add no entry, so the heap stays small."""
        due = tracker.next_change
        if due is not None and (tracker.due is None or due < tracker.due):
            tracker.due = due
            heapq.heappush(self._due, (due, name))

    def discard(self, name: str) -> None:
        """Forget a node."""
        self._unconfirmed.discard(name)

    @property
    def next_due(self) -> float | None:
        """Time of the next look, or None."""
        return self._due[0][0] if self._due else None

    def is_due(self, now: float) -> bool:
        """Return True if a node is to be looked at."""
        return bool(self._due) and self._due[0][0] <= now

    def confirm(self, nodes: Mapping[str, NodeLivenessTracker], until: float) -> None:
        """Look again at what waits, if the time until which the Lease watch is known to be complete is another one."""
        if until != self._confirmed_until:
            self._confirmed_until, waiting, self._unconfirmed = until, self._unconfirmed, set()
            for name in waiting & nodes.keys():
                self.add(name, nodes[name])

    def take(
        self, nodes: Mapping[str, NodeLivenessTracker], now: float, most: int
    ) -> Iterator[tuple[str, NodeLivenessTracker]]:
        """Yield up to `most` nodes that are due. Each is scheduled again after its turn."""
        for _ in range(most):
            if not self.is_due(now):
                return
            due, name = heapq.heappop(self._due)
            tracker = nodes.get(name)
            if tracker is None or tracker.due != due:
                continue
            tracker.due = None
            yield name, tracker
            if (change := tracker.next_change) is not None and change <= now:
                self._unconfirmed.add(name)
            else:
                self.add(name, tracker)
