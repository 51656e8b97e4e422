"""Jittered exponential back-off with an upper limit (requirement B9)."""

import random


class Backoff:
    """Pauses in seconds: about `first`, doubled each time, never above `limit`."""

    def __init__(self, first: float, limit: float) -> None:
        self._first = min(first, limit)
        self._limit = limit
        self._next = self._first

    def pause(self, at_least: float = 0.0) -> float:
        """The next pause; `at_least` is what the server asked for, itself bounded by the limit."""
        base, self._next = self._next, min(self._next * 2, self._limit)
        jittered = base * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards no secret
        return max(jittered, min(at_least, self._limit))

    def reset(self) -> None:
        """The attempt succeeded."""
        self._next = self._first
