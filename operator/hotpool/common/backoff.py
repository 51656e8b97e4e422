"""Jittered exponential back-off with an upper limit (requirement B9)."""

import random


def pause_after(failures: int, first: float, limit: float) -> float:
    """Return the pause before the next attempt: `first`, doubled by each earlier failure, never above `limit`.

    All times in seconds; `failures` is 0 for the first pause.
    """
    return float(min(first * 2 ** min(failures, 32), limit))


class Backoff:
    """Pauses in seconds: about `first`, doubled each time, never above `limit`."""

    def __init__(self, first: float, limit: float) -> None:
        self._first = first
        self._limit = limit
        self._failures = 0

    def pause(self, at_least: float = 0.0) -> float:
        """Return the next pause in seconds. `at_least`: the server's Retry-After, also bounded by the limit."""
        base = pause_after(self._failures, self._first, self._limit)
        self._failures += 1
        jittered = base * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret.
        return max(jittered, min(at_least, self._limit))

    def reset(self) -> None:
        """Start again from `first` after a successful attempt."""
        self._failures = 0
