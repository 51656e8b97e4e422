"""Work queue of keys with due times. A key is in flight at most once.

Pure; all times are monotonic seconds. A key added while it is in flight is due again when that work is done. Of two
due times the earlier counts.
"""

import heapq
from dataclasses import dataclass, field

from hotpool.core.model import Key

_SLACK = 64


@dataclass(slots=True)
class WorkQueue:
    """Keys with due times, keys for idle times, and at most `capacity` keys in flight."""

    capacity: int
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _in_flight: set[Key] = field(default_factory=set)
    _requeued: dict[Key, float] = field(default_factory=dict)
    """Keys in flight that were added again, with their due times."""
    _idle: dict[Key, None] = field(default_factory=dict)
    """Keys to take when none is due, in their order."""

    def add(self, key: Key, at: float) -> bool:
        """Make a key due at a time. Return False if it is already due then or earlier."""
        waiting = self._requeued if key in self._in_flight else self._due
        if at >= waiting.get(key, float("inf")):
            return False
        waiting[key] = at
        if waiting is self._due:
            self._push(key, at)
        return True

    def add_idle(self, key: Key) -> None:
        """Take the key when no other one is due. One in flight is added again."""
        self._idle[key] = None

    def take(self, now: float) -> list[tuple[Key, float]]:
        """Move due keys to the keys in flight, as far as the capacity allows. Return them with their due times."""
        taken: list[tuple[Key, float]] = []
        while (due := self._next()) is not None and due <= now:
            at, key = heapq.heappop(self._heap)
            del self._due[key]
            self._idle.pop(key, None)
            self._in_flight.add(key)
            taken.append((key, at))
        while len(self._in_flight) < self.capacity and (idle := self._next_idle()):
            del self._idle[idle]
            self._due.pop(idle, None)
            self._in_flight.add(idle)
            taken.append((idle, now))
        return taken

    def done(self, key: Key) -> None:
        """Record the end of the work on a key, successful or not."""
        self._in_flight.discard(key)
        if key in self._requeued:
            self.add(key, self._requeued.pop(key))

    def next_due(self) -> float | None:
        """Return when the next key can be taken. None: no such key, or no capacity."""
        if len(self._in_flight) < self.capacity and self._next_idle():
            return 0.0
        return self._next()

    def _next(self) -> float | None:
        if len(self._in_flight) >= self.capacity:
            return None
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _next_idle(self) -> Key | None:
        return next((key for key in self._idle if key not in self._in_flight), None)

    def _push(self, key: Key, at: float) -> None:
        """Push an entry. Outdated entries stay in the heap until they are half of it."""
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(at, key) for key, at in self._due.items()]
            heapq.heapify(self._heap)
