"""Which keys are due, and when; one at a time for each key.

Held by the reconciler. Pure bookkeeping with monotonic seconds: a key that becomes dirty while it is worked on is due
again when that work is done; of two times the earlier counts.
"""

import heapq
from dataclasses import dataclass, field

from hotpool.core.model import Key

_SLACK = 64


@dataclass(slots=True)
class WorkQueue:
    """Keys with due times, and the keys in flight, of which there are at most `room`."""

    capacity: int
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _busy: set[Key] = field(default_factory=set)
    _again: dict[Key, float] = field(default_factory=dict)
    """Keys in flight that became due meanwhile; they wait until they are done."""

    def add(self, key: Key, at: float) -> bool:
        """Make a key due at a time, unless it is due earlier; whether anything changed."""
        waiting = self._again if key in self._busy else self._due
        if at >= waiting.get(key, float("inf")):
            return False
        waiting[key] = at
        if waiting is self._due:
            self._push(key, at)
        return True

    def take(self, now: float) -> list[tuple[Key, float]]:
        """The keys that are due, as far as there is room, with their due times; they are in flight from now on."""
        taken: list[tuple[Key, float]] = []
        while (due := self.next_due()) is not None and due <= now:
            at, key = heapq.heappop(self._heap)
            del self._due[key]
            self._busy.add(key)
            taken.append((key, at))
        return taken

    def done(self, key: Key) -> None:
        """The work on a key ended, well or badly."""
        self._busy.discard(key)
        if key in self._again:
            self.add(key, self._again.pop(key))

    def next_due(self) -> float | None:
        """When the next key that is not in flight is due; None: there is none, or no room for it."""
        if len(self._busy) >= self.capacity:
            return None
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _push(self, key: Key, at: float) -> None:
        """Entries of times that an earlier one replaced stay in the heap, until they are half of it."""
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(at, key) for key, at in self._due.items()]
            heapq.heapify(self._heap)
