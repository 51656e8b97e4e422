"""Flap damping of one service, and the count of its failures (requirement A7). Pure.

Flap damping keeps a service that comes and goes from
being offered, by the penalty of RFC 2439 (route flap damping): each flap adds to it, it halves in a fixed time, and a
service that exceeds one limit stays suppressed until the penalty is below a second one. It never delays a withdrawal.
Times in seconds on any one clock.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from hotpool_agent.services.restart_backoff import restart_pause

FLAP: Final = 1.0
SUPPRESS: Final = 2.5
"""Penalty above which a service is suppressed, reached by the third flap in a row."""
REUSE: Final = 1.0
"""Penalty below which the service is offered again."""
LIMIT: Final = 8.0
"""Maximum of the penalty, so that a service is never suppressed for more than three half-lives."""


@dataclass(frozen=True, slots=True)
class FlapDamping:
    """Penalty of one service at the time `at`. `half_life`: seconds in which it halves."""

    half_life: float
    penalty: float = 0.0
    at: float = 0.0
    suppressed: bool = False

    def flapped(self, now: float) -> "FlapDamping":
        """Return the penalty after one more stop that was not requested."""
        penalty = min(self.level(now) + FLAP, LIMIT)
        return replace(self, penalty=penalty, at=now, suppressed=self.suppresses(now) or penalty > SUPPRESS)

    def suppresses(self, now: float) -> bool:
        """Return True if the service must not be offered even if it runs."""
        return self.suppressed and now < self.suppressed_until()

    def suppressed_until(self) -> float:
        """Return the time at which the penalty will have decayed to REUSE."""
        return self.at + self.half_life * math.log2(max(self.penalty, REUSE) / REUSE)

    def level(self, now: float) -> float:
        """Return the remaining penalty. A clock that went back counts as one that stood still."""
        return self.penalty * math.exp2(-max(0.0, now - self.at) / self.half_life)


class FlapHistory:
    """Failures and flaps of one service. Pauses in seconds, `damping` on the same monotonic clock as `now`."""

    def __init__(self, damping: FlapDamping, first_pause: float, pause_limit: float) -> None:
        self.damping = damping
        self._first_pause = first_pause
        self._pause_limit = pause_limit
        self._failures = 0
        """Failures in a row, without a run longer than the pause limit between them."""
        self._running_since: float | None = None
        self._before_stop = damping
        """Penalty before the last stop."""

    def started(self, now: float) -> None:
        """Record that the service is Running."""
        if self._running_since is None:
            self._running_since = now

    def stopped(self, now: float, *, requested: bool) -> bool:
        """Record that the service stopped running. Return True for a flap, a stop that was not requested.

        No effect if it was not running.
        """
        if self._running_since is None:
            return False
        duration, self._running_since = now - self._running_since, None
        self._before_stop = self.damping
        if duration > self._pause_limit:
            self._failures = 0
        if not requested:
            self.damping = self.damping.flapped(now)
        return not requested

    def excuse(self) -> None:
        """Take back the flap of the last stop, which turned out to be requested."""
        if self._running_since is None:
            self.damping = self._before_stop

    def reset_failures(self) -> None:
        """Make the next attempt the first one, as after a user's command."""
        self._failures = 0

    def retry_pause(self) -> float:
        """Count one more failure; return the seconds until the next attempt."""
        self._failures += 1
        return restart_pause(self._failures, self._first_pause, self._pause_limit)

    def flapping_until(self, now: float) -> float | None:
        """Return the time at which the service may be offered again; None if it may be now."""
        return self.damping.suppressed_until() if self.damping.suppresses(now) else None
