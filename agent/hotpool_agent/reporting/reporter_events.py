"""Events of the reporter's state, and the requests that follow (requirements B5 to B12): pure data."""

from dataclasses import dataclass

from hotpool_agent.reporting.ownership import StoredReport
from hotpool_agent.reporting.report_builder import ReportContent


@dataclass(frozen=True, slots=True)
class Moment:
    """Time of an event: `now` in seconds of a monotonic clock, `stamp` of the wall clock. `jitter`: 0.5 to 1."""

    now: float
    stamp: str
    jitter: float = 1.0


@dataclass(frozen=True, slots=True)
class ContentRead:
    """The present content of a report was read. `urgent`: a change must not wait for D."""

    content: ReportContent
    changed_at: str | None = None
    """Wall clock time of the first change in it."""
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """The watch delivered the stored report; None: there is none."""

    stored: StoredReport | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed, or the state changed."""


@dataclass(frozen=True, slots=True)
class StoredRead:
    """`Claim` succeeded: no other live agent owns the stored report."""

    stored: StoredReport | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The API server accepted the report in flight."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The API server rejected the report in flight, which is not minimal. `retry_after`: seconds that it asked for."""

    reason: str
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """A request failed. `reason`: None if the object was deleted, or holds a newer report."""

    reason: str | None
    retry_after: float = 0.0
    internal: bool = False
    """True for an unexpected error of this agent."""


Event = ContentRead | Observed | Tick | StoredRead | Accepted | Rejected | Failed


@dataclass(frozen=True, slots=True)
class Claim:
    """Request: read the stored report; if it is of another agent, observe that one for its Lease duration."""

    reason: str | None = None
    """Reason why an owned name is claimed again."""


@dataclass(frozen=True, slots=True)
class WriteReport:
    """Request: write a report with its stamps."""

    content: ReportContent
    epoch: int
    sequence: int
    stamp: str
    read: int
    """Number of the last reading of the content that had this result."""


Request = Claim | WriteReport
