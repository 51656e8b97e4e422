"""Flap damping of one service across restarts of the agent: the penalty is in the state file (requirement A7)."""

import asyncio
import time

from hotpool_agent.services.flap_damping import FlapDamping, FlapHistory
from hotpool_agent.services.state_machine import Machine
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StoredServiceState


class StoredFlaps:
    """Failures and flaps of one service. `stored`: its entry in the state file, which the caller saves."""

    def __init__(self, stored: StoredServiceState, settings: Settings) -> None:
        self._stored = stored
        penalty_at = _now() - max(0.0, time.time() - stored.penalty_at)
        self._history = FlapHistory(
            FlapDamping(settings.flap_half_life_seconds, stored.penalty, penalty_at, stored.suppressed),
            settings.restart_seconds,
            settings.restart_limit_seconds,
        )

    def started(self) -> None:
        """Record that the service is Running."""
        self._history.started(_now())

    def ended(self, before: Machine, machine: Machine) -> None:
        """Record that the service is Stopped or Failed. An end of Running that was not requested is a flap.

        An observed service of which nothing is left was stopped by its owner. Probes that failed while it went are
        then no flap either.
        """
        by_owner = machine.observed and machine.state == "Stopped"
        self._history.stopped(_now(), requested=by_owner or before.state != "Running")
        if by_owner:
            self._history.excuse()
        damping = self._history.damping
        self._stored.penalty, self._stored.penalty_at = damping.level(_now()), time.time()
        self._stored.suppressed = damping.suppressed

    def reset_failures(self) -> None:
        """Make the next attempt the first one, as after a user's command."""
        self._history.reset_failures()

    def retry_pause(self) -> float:
        """Count one more failure; return the seconds until the next attempt."""
        return self._history.retry_pause()

    def seconds_left(self) -> float | None:
        """Return the time until the service may be offered again; None if it may be now."""
        until = self._history.flapping_until(_now())
        return None if until is None else until - _now()


def _now() -> float:
    return asyncio.get_running_loop().time()
