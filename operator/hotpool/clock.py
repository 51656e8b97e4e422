"""Clocks of the operator, passed as arguments so that tests can simulate time.

Monotonic seconds measure silence and rates. The wall clock is only written into objects.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from hotpool.api.meta import timestamp


@dataclass(frozen=True, slots=True)
class Clock:
    """Monotonic clock and wall clock."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self.monotonic()

    def timestamp(self) -> str:
        """Return the current time as RFC 3339 in UTC."""
        return timestamp(datetime.fromtimestamp(self.unix(), UTC))

    @property
    def offset(self) -> float:
        """Unix time minus monotonic seconds; constant unless the wall clock is set."""
        return self.unix() - self.monotonic()
