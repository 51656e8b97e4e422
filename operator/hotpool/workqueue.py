"""Which keys are due, and when; one at a time for each key.

Held by the reconciler. Pure bookkeeping with monotonic seconds: a key that becomes dirty while it is worked on is due
again when that work is done; of two times the earlier counts.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from hotpool.core.model import Key


@dataclass(slots=True)
class WorkQueue:
    """Keys with due times, and the keys in flight."""

    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _busy: set[Key] = field(default_factory=set)

    def add(self, keys: Iterable[Key], at: float) -> bool:
        """Make keys due at a time, unless they are due earlier; whether anything changed."""
        changed = False
        for key in keys:
            if at < self._due.get(key, float("inf")):
                self._due[key] = at
                heapq.heappush(self._heap, (at, key))
                changed = True
        return changed

    def take(self, now: float, room: int) -> list[tuple[Key, float]]:
        """Up to `room` keys that are due and not in flight, with their due times; they are in flight from now on."""
        taken: list[tuple[Key, float]] = []
        later: list[tuple[float, Key]] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < room:
            at, key = heapq.heappop(self._heap)
            if self._due.get(key) != at:
                continue
            if key in self._busy:
                later.append((at, key))
                continue
            del self._due[key]
            self._busy.add(key)
            taken.append((key, at))
        for entry in later:
            heapq.heappush(self._heap, entry)
        return taken

    def done(self, key: Key) -> None:
        """The work on a key ended, well or badly."""
        self._busy.discard(key)

    def next_due(self) -> float | None:
        """When the next key that is not in flight is due, or None."""
        return min((at for key, at in self._due.items() if key not in self._busy), default=None)

    @property
    def busy(self) -> int:
        """How many keys are in flight."""
        return len(self._busy)
