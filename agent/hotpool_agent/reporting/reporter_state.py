"""State of the reporter: claims an epoch, then sends one report at a time, in order (A12, B5-B9, B11, B12): pure.

After an unknown outcome the stored report is read before anything is decided. Times are seconds of `Moment.now`.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from hotpool_agent.reporting.debounce import PendingChange, expedite, pending_change
from hotpool_agent.reporting.failures import Pauses, ReportFailures
from hotpool_agent.reporting.ownership import OwnershipDecision, StoredReport, decide
from hotpool_agent.reporting.report_builder import Change, ReportContent, classify, minimal
from hotpool_agent.reporting.reporter_events import (
    Accepted,
    Action,
    ConflictPublished,
    ContentRead,
    Event,
    Expedited,
    Failed,
    Moment,
    NameTaken,
    NotStored,
    Observed,
    ObserveOther,
    OtherSilent,
    PublishConflict,
    ReadContent,
    ReadStored,
    Rejected,
    StoredRead,
    Tick,
    WriteReport,
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in seconds: H, D, and the time without a change after which the whole report is written again."""

    interval: float
    debounce: float
    refresh: float


class Phase(Enum):
    """Step of the reporter."""

    PAUSED = auto()
    """Before a claim."""
    CLAIMED = auto()
    """The epoch is known, and the next report is to be decided."""
    WAITING = auto()
    """The accepted report is the present one, or the next one is not due."""
    REQUESTING = auto()
    """A request is in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReporterState:
    """All that the reporter knows. Start it with a Tick."""

    instance: str
    session: str
    timing: Timing
    pauses: Pauses
    failures: ReportFailures
    phase: Phase = Phase.PAUSED
    paused_until: float = 0.0
    epoch: int = 0
    sequence: int = 0
    problem: str | None = "not connected yet"
    rejected: str | None = None
    """Error for which the API server rejected the last report, so that it holds a minimal one (requirement B11)."""
    accepted_at: str | None = None
    owns_name: bool = False
    reclaim_reason: str | None = None
    accepted: tuple[ReportContent, int] | None = None
    """Content of our report that the API server holds, and its sequence."""
    rejected_content: ReportContent | None = None
    """Whole report for which the API server holds a minimal one."""
    accepted_epoch: int = 0
    """Last epoch in which a report was accepted; 0: none yet."""
    sent: ReportContent | None = None
    """Content of the report in flight or of unknown outcome."""
    sent_stamp: str | None = None
    replaces_rejected: bool = False
    """True if `sent` is the minimal report in place of a rejected one."""
    latest: ReportContent | None = None
    pending: PendingChange | None = None
    refresh_at: float = 0.0
    reads: int = 0
    """Number of the last reading of the content."""
    sent_read: int = 0
    accepted_read: int = 0
    """Numbers of the readings that were sent and accepted last."""

    def holder(self, now: float) -> str | None:
        """Return the holder identity for the Lease, or None unless a report of the current epoch is accepted (B8).

        Also None if this agent could not report the present state for 10 s because of an error of its own (A12).
        """
        if self.owns_name and self.accepted and not self.failures.stop_heartbeats(now):
            return f"{self.instance}/{self.epoch}"
        return None

    def is_withdrawn(self, service: str) -> bool:
        """Return True if neither the accepted report nor one in flight offers the service."""
        if self._is_uncertain or self.accepted is None:
            return False
        return not self.accepted[0].offers(service) and not (self.sent and self.sent.offers(service))

    def is_reported(self, read: int) -> bool:
        """Return True if the API server holds the content of this reading or of a later one."""
        return not self._is_uncertain and self.accepted_read >= read

    @property
    def _is_uncertain(self) -> bool:
        """True without a claim, or while an earlier report of unknown outcome may still replace the accepted one."""
        return not self.owns_name or self.refresh_at == 0

    def due(self) -> float:
        """Return the time of the next Tick."""
        if self.phase is Phase.PAUSED:
            return self.paused_until
        times = (self.pending.due if self.pending else None, self.refresh_at, self.failures.retry_at)
        return min(time for time in times if time is not None)


Step = tuple[ReporterState, tuple[Action, ...]]


def step(state: ReporterState, event: Event, at: Moment) -> Step:
    """Return the state after the event, and the actions: at most one request, which another event answers."""
    match event:
        case ContentRead():
            return _on_content(state, event, at), ()
        case Expedited():
            return replace(state, pending=expedite(state.pending, at.now)), ()
        case Observed(stored):
            return replace(state, reclaim_reason=_reclaim_reason(state, stored) or state.reclaim_reason), ()
        case Tick():
            return _on_tick(state, at)
        case StoredRead(stored):
            return _on_stored(state, stored)
        case OtherSilent(stored):
            return _claimed(_next_epoch(state, stored))
        case Accepted():
            return _on_accepted(state, event, at)
        case Rejected():
            return _on_rejected(state, event, at)
        case _:
            return _on_failure(state, event, at)


def _on_content(state: ReporterState, event: ContentRead, at: Moment) -> ReporterState:
    """Compare the content with the one sent last."""
    reads, accepted = state.reads + 1, state.accepted[0] if state.accepted else None
    change = classify(state.sent or state.rejected_content or accepted, event.content)
    equal = change is Change.NONE
    return replace(
        state,
        latest=event.content,
        reads=reads,
        sent_read=reads if equal and state.sent else state.sent_read,
        accepted_read=reads if equal and not state.sent else state.accepted_read,
        pending=pending_change(state.pending, change, at.now, event.changed_at or at.stamp, state.timing.debounce),
        failures=state.failures.on_build(
            at.now,
            at.jitter,
            failed=event.failed,
            reported=accepted is not None and accepted.digest == event.content.digest,
            rejected=state.rejected_content is not None,
        ),
    )


def _reclaim_reason(state: ReporterState, stored: StoredReport | None) -> str | None:
    """Return the reason to claim again if the stored report is not ours."""
    if not state.owns_name or not state.accepted:
        return None
    if stored is None:
        return "the API server no longer holds this agent's report"
    if stored.session != state.session and stored.epoch >= state.epoch:
        return "another agent has written the report of this node"
    return None


def _on_tick(state: ReporterState, at: Moment) -> Step:
    if state.phase is Phase.REQUESTING or (state.phase is Phase.PAUSED and at.now < state.paused_until):
        return state, ()
    if state.phase is Phase.PAUSED:
        return _read_stored(state)
    if state.phase is Phase.CLAIMED:
        unchanged = state.accepted and not state.pending and state.refresh_at > at.now
        state = replace(_succeeded(state) if unchanged else state, phase=Phase.WAITING)
    if state.reclaim_reason:
        return _read_stored(state, state.reclaim_reason)
    if not state.latest or (state.accepted and state.due() > at.now):
        return state, ()
    return _send(state, state.latest, at)


def _read_stored(state: ReporterState, reason: str | None = None) -> Step:
    state = replace(state, phase=Phase.REQUESTING, owns_name=False, reclaim_reason=None)
    return state, (ReadStored(reason),)


def _on_stored(state: ReporterState, stored: StoredReport | None) -> Step:
    """Determine epoch, sequence and which report of ours was accepted."""
    decision = decide(stored, state.instance, state.session, state.accepted_epoch)
    if stored and decision is OwnershipDecision.WATCH:
        return state, (ObserveOther(stored),)
    if stored and decision is OwnershipDecision.CONTINUE:
        return _claimed(_same_epoch(state, stored))
    return _claimed(_next_epoch(state, stored))


def _next_epoch(state: ReporterState, stored: StoredReport | None) -> ReporterState:
    epoch = max(stored.epoch if stored else 0, state.accepted_epoch) + 1
    # A claim of unknown outcome keeps its sequence: if it arrives late, it is still older than the next report.
    return replace(state, sequence=state.sequence if epoch == state.epoch else 0, epoch=epoch, accepted=None)


def _same_epoch(state: ReporterState, stored: StoredReport) -> ReporterState:
    if state.sent and stored.sequence == state.sequence:
        accepted = (state.sent, state.sequence)
        state = replace(state, accepted=accepted, accepted_read=state.sent_read, sent_stamp=None)
    elif state.accepted and state.accepted[1] != stored.sequence:
        state = replace(state, accepted=None)
    elif state.sent:
        # The report in flight may still arrive. Only a later report, sent even without a change, can replace it.
        state = replace(state, refresh_at=0.0)
    sequence = max(state.sequence, stored.sequence)
    return replace(state, epoch=stored.epoch, accepted_epoch=stored.epoch, sequence=sequence)


def _claimed(state: ReporterState) -> Step:
    return replace(state, phase=Phase.CLAIMED, owns_name=True, sent=None), (ReadContent(),)


def _send(state: ReporterState, latest: ReportContent, at: Moment) -> Step:
    stamp = state.sent_stamp or (state.pending.stamp if state.pending else at.stamp)
    state = replace(state, pending=None, sent_stamp=stamp, sent_read=state.reads, replaces_rejected=False)
    return _write(state, latest, stamp)


def _write(state: ReporterState, content: ReportContent, stamp: str) -> Step:
    state = replace(state, phase=Phase.REQUESTING, sent=content, sequence=state.sequence + 1)
    return state, (WriteReport(content, state.epoch, state.sequence, stamp),)


def _on_accepted(state: ReporterState, event: Accepted, at: Moment) -> Step:
    if not state.replaces_rejected:
        state = replace(state, rejected=None, rejected_content=None)
    accepted = event.written.content, event.written.sequence
    return _reported(replace(state, accepted=accepted, accepted_at=at.stamp), at)


def _on_rejected(state: ReporterState, event: Rejected, at: Moment) -> Step:
    """Write the minimal report in place of one that the API server rejects, unless it holds that one already."""
    content = event.written.content
    state = replace(
        state,
        rejected=event.reason,
        rejected_content=content,
        failures=state.failures.on_rejection(at.now, at.jitter, event.retry_after),
    )
    small = minimal(content.report, "ReportRejected")
    if state.accepted and state.accepted[0].digest == small.digest:
        return _reported(state, at)
    # The older report claims too much. Until the minimal one is stored, no heartbeat may confirm it.
    return _write(replace(state, accepted=None, replaces_rejected=True), small, event.written.stamp)


def _reported(state: ReporterState, at: Moment) -> Step:
    """The API server holds the state that was sent, or the minimal report in its place."""
    state = replace(
        _succeeded(state),
        phase=Phase.WAITING,
        accepted_read=state.sent_read,
        accepted_epoch=state.epoch,
        sent=None,
        sent_stamp=None,
        refresh_at=at.now + state.timing.refresh,
    )
    return state, (ReadContent(),)


def _succeeded(state: ReporterState) -> ReporterState:
    return replace(state, problem=None, failures=state.failures.on_success(), pauses=state.pauses.after_success())


def _on_failure(state: ReporterState, event: NameTaken | ConflictPublished | NotStored | Failed, at: Moment) -> Step:
    """Keep the claim until the pause is over: heartbeats confirm the accepted report meanwhile."""
    match event:
        case NameTaken(reason):
            return replace(state, problem=reason), (PublishConflict(reason),)
        case ConflictPublished():
            return replace(state, phase=Phase.PAUSED, paused_until=at.now + state.timing.interval), ()
        case Failed(reason, internal=internal):
            failures = state.failures.on_internal_error(at.now) if internal else state.failures
            state = replace(state, problem=reason, failures=failures)
    retry_after = event.retry_after if isinstance(event, Failed) else 0.0
    pause = state.pauses.next(at.jitter, retry_after)
    state = replace(state, phase=Phase.PAUSED, paused_until=at.now + pause, pauses=state.pauses.after_failure())
    return state, ()
