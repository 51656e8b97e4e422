"""What a service did lately: how long it ran, how often it failed (requirement A7).

Keeps the count of failures and the flap penalty, and puts the penalty where the state file takes it from; what follows
from them is decided in `damping`. Times in seconds of a monotonic clock, given by the caller.
"""

import time

from hotpool_agent.services.flap_damping import FlapDamping, retry_pause
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StoredServiceState


class FlapHistory:
    """The record of one service. The penalty that `remembered` holds goes on where the last agent left it."""

    def __init__(self, remembered: StoredServiceState, settings: Settings, now: float) -> None:
        self._remembered = remembered
        self._settings = settings
        self._failures = 0
        """In a row, without a long time of Running between them."""
        self._running_since: float | None = None
        passed = max(0.0, time.time() - remembered.penalty_at)
        self._damping = FlapDamping(
            settings.flap_half_life_seconds, remembered.penalty, now - passed, remembered.suppressed
        )

    def started(self, now: float) -> None:
        """It is Running."""
        if self._running_since is None:
            self._running_since = now

    def ended(self, now: float, *, wished: bool) -> None:
        """It is Running no more; unless that was wished for, it is one flap more. No matter if it did not run."""
        if self._running_since is None:
            return
        lasted, self._running_since = now - self._running_since, None
        if lasted > self._settings.restart_limit_seconds:
            self._failures = 0
        if not wished:
            self._damping = self._damping.flapped(now)
            kept = self._remembered
            kept.penalty, kept.penalty_at, kept.suppressed = (
                self._damping.penalty,
                time.time(),
                self._damping.suppressed,
            )

    def reset_failures(self) -> None:
        """A user has spoken: the next attempt is the first."""
        self._failures = 0

    def retry_pause(self) -> float:
        """Seconds until the next attempt, after one failure more."""
        self._failures += 1
        return retry_pause(self._failures, self._settings.restart_seconds, self._settings.restart_limit_seconds)

    def flapping_until(self, now: float) -> float | None:
        """When it may be offered again; None: now."""
        return self._damping.suppressed_until() if self._damping.suppresses(now) else None
