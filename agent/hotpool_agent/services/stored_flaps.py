"""Failures and flaps of one service; the penalty is in the state file, so it survives the agent (requirement A7)."""

import asyncio
import time

from hotpool.common.backoff import pause_after
from hotpool_agent.services.flap_damping import FlapDamping
from hotpool_agent.services.state_machine import Machine
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StoredServiceState


class StoredFlaps:
    """Failures and flaps of one service. `stored`: its entry in the state file, which the caller saves."""

    def __init__(self, stored: StoredServiceState, settings: Settings) -> None:
        self._stored = stored
        self._settings = settings
        penalty_at = _now() - max(0.0, time.time() - stored.penalty_at)
        self._damping = FlapDamping(settings.flap_half_life_seconds, stored.penalty, penalty_at, stored.suppressed)
        self._before_end = self._damping
        """Penalty before the last end of Running."""
        self._failures = 0
        """Failures in a row, without a run longer than the limit of pauses between them."""
        self._running_since: float | None = None

    def started(self) -> None:
        """Record that the service is Running."""
        self._running_since = self._running_since or _now()

    def ended(self, before: Machine, machine: Machine) -> None:
        """Record that the service is Stopped or Failed. An end of Running that was not requested is a flap.

        An observed service of which nothing is left was stopped by its owner. Probes that failed while it went are
        then no flap either.
        """
        now, by_owner = _now(), machine.observed and machine.state == "Stopped"
        if self._running_since is not None:
            if now - self._running_since > self._settings.restart_limit_seconds:
                self._failures = 0
            self._running_since, self._before_end = None, self._damping
            if before.state == "Running":
                self._damping = self._damping.flapped(now)
        if by_owner:
            self._damping = self._before_end
        self._stored.penalty, self._stored.penalty_at = self._damping.level(now), time.time()
        self._stored.suppressed = self._damping.suppressed

    def reset_failures(self) -> None:
        """Make the next attempt the first one, as after a user's command."""
        self._failures = 0

    def retry_pause(self) -> float:
        """Count one more failure; return the seconds until the next attempt."""
        self._failures += 1
        return pause_after(self._failures - 1, self._settings.restart_seconds, self._settings.restart_limit_seconds)

    def seconds_left(self) -> float | None:
        """Return the time until the service may be offered again; None if it may be now."""
        now = _now()
        return self._damping.suppressed_until() - now if self._damping.suppresses(now) else None


def _now() -> float:
    return asyncio.get_running_loop().time()
