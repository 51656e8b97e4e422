"""Failures to report the present state: when to try again, and when heartbeats stop (requirements A12, B11): pure.

Times are seconds of the clock that `now` is taken from. `jitter` is a random factor of pauses, below or equal to 1.
"""

from dataclasses import dataclass, replace
from typing import Final

FAILURE_SECONDS: Final = 10.0
"""Time for which heartbeats confirm an accepted report although an error of this agent prevents a later one."""
_MAX_DOUBLINGS: Final = 32


@dataclass(frozen=True, slots=True)
class Pauses:
    """Pauses between attempts, in seconds: `first`, doubled after each failure, never above `limit`."""

    first: float
    limit: float
    failures: int = 0

    def next(self, jitter: float, at_least: float = 0.0) -> float:
        """Return the next pause. `at_least`: the server's Retry-After, also bounded by the limit."""
        base: float = min(self.first * 2 ** min(self.failures, _MAX_DOUBLINGS), self.limit)
        return max(base * jitter, min(at_least, self.limit))

    def after_failure(self) -> "Pauses":
        """Return the pauses after one more failure."""
        return replace(self, failures=self.failures + 1)

    def after_success(self) -> "Pauses":
        """Return the pauses after a success."""
        return replace(self, failures=0)


@dataclass(frozen=True, slots=True)
class ReportFailures:
    """The present failure."""

    pauses: Pauses
    retry_at: float | None = None
    """Time at which a rejected report is sent again, or one that could not be built is built again."""
    since: float | None = None
    """Time since which the accepted report is not the present one because of an error of this agent."""
    internal: bool = False

    def on_build(self, now: float, jitter: float, *, failed: bool, reported: bool, rejected: bool) -> "ReportFailures":
        """Record an attempt to build the report.

        `reported`: the API server holds this content. `rejected`: it rejected the last whole report.
        """
        after = self
        if failed and (self.retry_at is None or self.is_retry_due(now)):
            after = self._retry_later(now, self.pauses.next(jitter))
        elif not failed and not rejected:
            after = replace(self, retry_at=None, pauses=self.pauses.after_success())
        if self.internal:
            return after
        return replace(after, since=(self.since or now) if failed and not reported else None)

    def on_rejection(self, now: float, jitter: float, retry_after: float) -> "ReportFailures":
        """Record that the API server rejected the report, and asked for a pause of `retry_after` seconds."""
        return self._retry_later(now, self.pauses.next(jitter, retry_after))

    def on_internal_error(self, now: float) -> "ReportFailures":
        """Record an unexpected error of the agent; it lasts until `on_success`."""
        return replace(self, internal=True, since=self.since or now)

    def on_success(self) -> "ReportFailures":
        """Record that the API server accepted the report."""
        return replace(self, internal=False, since=None) if self.internal else self

    def is_retry_due(self, now: float) -> bool:
        """Return True if it is time for the next attempt."""
        return self.retry_at is not None and self.retry_at <= now

    def stop_heartbeats(self, now: float) -> bool:
        """Return True if an error of this agent has kept the present state unreported for 10 s."""
        return self.since is not None and now - self.since >= FAILURE_SECONDS

    def _retry_later(self, now: float, pause: float) -> "ReportFailures":
        return replace(self, retry_at=now + pause, pauses=self.pauses.after_failure())
