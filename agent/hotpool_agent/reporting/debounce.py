"""Due time of the next report (requirement B6): pure. Times are seconds of the clock that `now` is taken from.

A withdrawal is due at once. The first unsent gain or neutral change opens a window of D, which later changes do not
move. Must not know the contents of a report.
"""

from dataclasses import dataclass

from hotpool_agent.reporting.report_builder import Change


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A change that is not sent yet."""

    change: Change
    opened: float
    due: float
    stamp: str
    """Wall clock time at which the strongest part of the change was seen."""


def pending_change(
    before: PendingChange | None, change: Change, now: float, stamp: str, debounce: float
) -> PendingChange | None:
    """Return the pending change, given that the state differs by `change` from the one sent last.

    `stamp`: wall clock time at which the difference was first seen. `debounce`: D. Must be called with every
    state, also with Change.NONE for a state that equals the one sent last.
    """
    if change is Change.NONE:
        return None
    if before is None:
        before = PendingChange(Change.NONE, now, now, stamp)
    if change is before.change:
        return before
    due = now if change is Change.WITHDRAWAL else before.opened + debounce
    return PendingChange(change, before.opened, due, before.stamp if change < before.change else stamp)
