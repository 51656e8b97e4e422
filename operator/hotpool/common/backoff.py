"""Jittered exponential back-off with an upper limit (requirement B9)."""

import random


class Backoff:
    """Pauses in seconds: about `first`, doubled each time, never above `limit`."""

    def __init__(self, first: float, limit: float) -> None:
        self._first = min(first, limit)
        self._limit = limit
        self._next = self._first

    def pause(self, at_least: float = 0.0) -> float:
        """Return the next pause in seconds. `at_least`: the server's Retry-After, also bounded by the limit."""
        base, self._next = self._next, min(self._next * 2, self._limit)
        jittered = base * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret.
        return max(jittered, min(at_least, self._limit))

    def reset(self) -> None:
        """Start again from `first` after a successful attempt."""
        self._next = self._first
