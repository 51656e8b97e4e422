"""The two clocks of the operator, given to whom needs them so that tests can simulate time.

A leaf. Monotonic seconds measure silence and pace; the wall clock is only written down.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from hotpool.api.meta import timestamp


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self.monotonic()

    def timestamp(self) -> str:
        """Now as RFC 3339 in UTC."""
        return timestamp(datetime.fromtimestamp(self.unix(), UTC))

    @property
    def offset(self) -> float:
        """Unix time minus monotonic seconds, as far as the wall clock stays."""
        return self.unix() - self.monotonic()
