"""Events of the reporter's state, and the actions that follow (requirements B5 to B12): pure data."""

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
    """The present content of a report was read. `failed`: it could not be built, and `content` is minimal."""

    content: ReportContent
    failed: bool = False
    changed_at: str | None = None
    """Wall clock time of the first change in it."""


@dataclass(frozen=True, slots=True)
class Expedited:
    """A pending change must not wait for D."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The watch delivered the stored report; None: there is none."""

    stored: StoredReport | None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed, or the state changed. Nothing is requested from the API server at this moment."""


@dataclass(frozen=True, slots=True)
class StoredRead:
    """`ReadStored` returned."""

    stored: StoredReport | None


@dataclass(frozen=True, slots=True)
class OtherSilent:
    """The agent of the stored report was silent for its Lease duration."""

    stored: StoredReport


@dataclass(frozen=True, slots=True)
class NameTaken:
    """The agent of the stored report is alive."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConflictPublished:
    """`PublishConflict` ended."""


@dataclass(frozen=True, slots=True)
class WriteReport:
    """Action: write a report with its stamps."""

    content: ReportContent
    epoch: int
    sequence: int
    stamp: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The API server accepted the report."""

    written: WriteReport


@dataclass(frozen=True, slots=True)
class Rejected:
    """The API server rejected the report, which is not minimal, and asked for a pause of `retry_after` seconds."""

    written: WriteReport
    reason: str
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class NotStored:
    """The object was deleted, or holds a newer report."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A request failed. `internal`: by an unexpected error of this agent."""

    reason: str
    retry_after: float = 0.0
    internal: bool = False


Event = (
    ContentRead
    | Expedited
    | Observed
    | Tick
    | StoredRead
    | OtherSilent
    | NameTaken
    | ConflictPublished
    | Accepted
    | Rejected
    | NotStored
    | Failed
)


@dataclass(frozen=True, slots=True)
class ReadContent:
    """Action: read the present content, which causes ContentRead at once."""


@dataclass(frozen=True, slots=True)
class ReadStored:
    """Action: read the stored report. `reason`: why an owned name is claimed again."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ObserveOther:
    """Action: observe the agent of the stored report for its Lease duration."""

    stored: StoredReport


@dataclass(frozen=True, slots=True)
class PublishConflict:
    """Action: publish that the name is taken."""

    reason: str


Request = ReadStored | ObserveOther | PublishConflict | WriteReport
Action = ReadContent | Request
