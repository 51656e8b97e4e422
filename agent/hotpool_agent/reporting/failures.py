"""Failures to report the present state: when to try again, and when heartbeats stop (requirements A12, B11): pure.

Times are seconds of the clock that `now` is taken from.
"""

from typing import Final

from hotpool.common.backoff import Backoff

FAILURE_SECONDS: Final = 10.0
"""Time for which heartbeats confirm an accepted report although an error of this agent prevents a later one."""


class ReportFailures:
    """The present failure. `first` and `limit`: pauses before the next attempt, in seconds."""

    def __init__(self, first: float, limit: float) -> None:
        self.retry_at: float | None = None
        """Time at which a rejected report is sent again, or one that could not be built is built again."""
        self._backoff = Backoff(first, limit)
        self._since: float | None = None
        """Time since which the accepted report is not the present one because of an error of this agent."""
        self._internal = False

    def on_build(self, now: float, *, failed: bool, reported: bool, rejected: bool) -> bool:
        """Record an attempt to build the report. Return True if it ends a failure.

        `reported`: the API server holds this content. `rejected`: it rejected the last whole report.
        """
        if failed and (self.retry_at is None or self.is_retry_due(now)):
            self.retry_at = now + self._backoff.pause()
        elif not failed and not rejected:
            self.retry_at = None
            self._backoff.reset()
        if self._internal:
            return False
        before = self._since
        self._since = (before or now) if failed and not reported else None
        return before is not None and self._since is None

    def on_rejection(self, now: float, retry_after: float) -> None:
        """Record that the API server rejected the report, and asked for a pause of `retry_after` seconds."""
        self.retry_at = now + self._backoff.pause(retry_after)

    def on_internal_error(self, now: float) -> None:
        """Record an unexpected error of the agent; it lasts until `on_success`."""
        self._internal, self._since = True, self._since or now

    def on_success(self) -> None:
        """Record that the API server accepted the report."""
        if self._internal:
            self._internal, self._since = False, None

    def is_retry_due(self, now: float) -> bool:
        """Return True if it is time for the next attempt."""
        return self.retry_at is not None and self.retry_at <= now

    def stop_heartbeats(self, now: float) -> bool:
        """Return True if an error of this agent has kept the present state unreported for 10 s."""
        return self._since is not None and now - self._since >= FAILURE_SECONDS
