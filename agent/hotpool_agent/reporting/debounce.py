"""Due time of the next report (requirement B6): pure. Times are seconds of the clock that `now` is taken from.

A withdrawal is due at once. The first unsent gain or neutral change opens a window of D, which later changes do not
move. Must not know the contents of a report.
"""

from dataclasses import dataclass, replace

from hotpool_agent.reporting.report_builder import Change


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A change that is not sent yet."""

    change: Change
    opened: float
    due: float
    stamp: str
    """Wall clock time at which the strongest part of the change was seen."""


class Debouncer:
    """Holder of the unsent change, and of its due time."""

    def __init__(self, debounce: float) -> None:
        self._debounce = debounce
        self.pending: PendingChange | None = None

    def add(self, change: Change, now: float, stamp: str) -> None:
        """Record that the state differs by `change` from the one sent last, first seen at `stamp` (a wall clock time).

        Must be called with every state, also with Change.NONE for a state that equals the one sent last.
        """
        before = self.pending
        if change is Change.NONE:
            self.pending = None
            return
        opened = before.opened if before else now
        same = before is not None and change <= before.change
        due = now if change is Change.WITHDRAWAL else opened + self._debounce
        if before is not None and change is before.change:
            due = before.due
        self.pending = PendingChange(change, opened, due, before.stamp if before and same else stamp)

    def expedite(self, now: float) -> None:
        """Make the pending change due now."""
        if self.pending:
            self.pending = replace(self.pending, due=min(self.pending.due, now))

    def due(self) -> float | None:
        """Return the due time of the pending change, or None."""
        return self.pending.due if self.pending else None

    def take(self) -> PendingChange | None:
        """Return the pending change and forget it, because it is sent now."""
        taken, self.pending = self.pending, None
        return taken
