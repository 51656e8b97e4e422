"""When a report is due (requirement B6): pure, on whatever clock the caller's `now` comes from, in seconds.

A withdrawal is due at once; the first unsent gain or neutral change opens a window of D that later changes never move.
Must not know what a report holds.
"""

from dataclasses import dataclass, replace

from hotpool_agent.reporting.report_builder import Change


@dataclass(frozen=True, slots=True)
class Pending:
    """What is not sent yet."""

    change: Change
    opened: float
    due: float
    stamp: str
    """When the strongest part of it was seen."""


class Debouncer:
    """Remembers the unsent change."""

    def __init__(self, debounce: float) -> None:
        self._debounce = debounce
        self.pending: Pending | None = None

    def add(self, change: Change, now: float, stamp: str) -> None:
        """The state now differs by `change` from the one sent last; seen first at `stamp` (a wall clock time).

        Call it with every state, also with Change.NONE when the state is again what was sent.
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
        self.pending = Pending(change, opened, due, before.stamp if before and same else stamp)

    def expedite(self, now: float) -> None:
        """What is pending is due now."""
        if self.pending:
            self.pending = replace(self.pending, due=min(self.pending.due, now))

    def due(self) -> float | None:
        """When to send what is pending; None: nothing is."""
        return self.pending.due if self.pending else None

    def take(self) -> Pending | None:
        """What is pending, which is sent now."""
        taken, self.pending = self.pending, None
        return taken
