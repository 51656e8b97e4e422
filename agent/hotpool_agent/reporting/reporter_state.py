"""State of the reporter: claims an epoch, then sends one report at a time, in order (A12, B5-B9, B11, B12): pure.

After an unknown outcome the stored report is read before anything is decided. Times are seconds of `Moment.now`.
"""

from dataclasses import dataclass, replace
from typing import Final

from hotpool.api.capability import Report
from hotpool.common.backoff import pause_after
from hotpool_agent.reporting import reporter_events as events
from hotpool_agent.reporting.debounce import PendingChange, pending_change
from hotpool_agent.reporting.ownership import StoredReport
from hotpool_agent.reporting.report_builder import Change, ReportContent, classify, minimal
from hotpool_agent.reporting.reporter_events import Event, Moment, Request, WriteReport
from hotpool_agent.settings import Settings

FAILURE_SECONDS: Final = 10.0
"""Time for which heartbeats confirm an accepted report although an error of this agent prevents a later one."""
_RETRY_INTERVALS: Final = 4
"""Longest pause between two attempts to build a report, or to send a rejected one, in intervals H."""


@dataclass(frozen=True, slots=True)
class ReporterState:
    """All that the reporter knows. Its first event must be ContentRead."""

    blank: Report
    """A report without services and stamps, of this instance and session."""
    settings: Settings
    requesting: bool = False
    """True while a request is in flight."""
    claim_at: float | None = 0.0
    """Time of the next claim; None: none is needed."""
    claim_reason: str | None = None
    """Reason why an owned name is claimed again."""
    owns_name: bool = False
    epoch: int = 0
    sequence: int = 0
    problem: str | None = "not connected yet"
    failures: int = 0
    """Failed requests in a row."""
    rejected: str | None = None
    """Error for which the API server rejected the last report, so that it holds a minimal one (requirement B11)."""
    rejected_content: ReportContent | None = None
    """The whole report of that error."""
    retry_at: float | None = None
    """Time at which a rejected report is sent again, or one that could not be built is built again."""
    retries: int = 0
    unbuilt_since: float | None = None
    """Time since which the report cannot be built, and the API server holds an older one."""
    defect_since: float | None = None
    """Time of the first unexpected error of this agent after the last success."""
    latest: ReportContent | None = None
    reads: int = 0
    """Number of the last reading of the content."""
    pending: PendingChange | None = None
    sent: WriteReport | None = None
    """Report in flight or of unknown outcome."""
    accepted: WriteReport | None = None
    """Report of ours that the API server holds."""
    accepted_at: str | None = None
    accepted_epoch: int = 0
    """Last epoch in which a report was accepted; 0: none yet."""
    refresh_at: float = 0.0

    def holder(self, now: float) -> str | None:
        """Return the holder identity for the Lease, or None unless a report of the current epoch is accepted (B8).

        Also None if this agent could not report the present state for 10 s because of an error of its own (A12).
        """
        return (
            f"{self.blank.instance}/{self.epoch}" if self.owns_name and self.accepted and not self.fails(now) else None
        )

    def fails(self, now: float) -> bool:
        """Return True if an error of this agent has kept the present state unreported for 10 s."""
        since = [time for time in (self.unbuilt_since, self.defect_since) if time is not None]
        return bool(since) and now - min(since) >= FAILURE_SECONDS

    def is_withdrawn(self, service: str) -> bool:
        """Return True if neither the accepted report nor one in flight offers the service."""
        writes = (self._confirmed, self.sent)
        return writes[0] is not None and not any(write and write.content.offers(service) for write in writes)

    def is_reported(self, read: int) -> bool:
        """Return True if the API server holds the content of this reading or of a later one."""
        return self._confirmed is not None and self._confirmed.read >= read

    @property
    def _confirmed(self) -> WriteReport | None:
        """The accepted report; None without a claim, or while an earlier one of unknown outcome may replace it."""
        return self.accepted if self.owns_name and self.refresh_at else None

    def is_retry_due(self, now: float) -> bool:
        """Return True if a report that was rejected or not built is to be read again."""
        return self.retry_at is not None and self.retry_at <= now

    def due(self) -> float:
        """Return the time of the next request, if none is in flight."""
        if self.claim_at is not None:
            return self.claim_at
        times = (self.pending.due if self.pending else None, self.refresh_at, self.retry_at)
        return min(time for time in times if time is not None) if self.accepted else 0.0


Step = tuple[ReporterState, Request | None]


def step(state: ReporterState, event: Event, at: Moment) -> Step:
    """Return the state after the event, and a request if one is due; StoredRead to Failed answer it."""
    match event:
        case events.ContentRead():
            return _on_content(state, event, at), None
        case events.Observed(stored):
            return _on_observed(state, stored, at), None
        case events.Tick():
            return _on_tick(state, at)
        case events.StoredRead(stored):
            return _on_stored(state, stored, at), None
        case events.Accepted() if state.sent:
            return _on_accepted(state, state.sent, at), None
        case events.Rejected() if state.sent:
            return _on_rejected(state, state.sent, event, at)
        case events.Failed():
            return _on_failure(state, event, at), None
    return state, None


def _on_content(state: ReporterState, event: events.ContentRead, at: Moment) -> ReporterState:
    state = replace(state, latest=event.content, reads=state.reads + 1)
    failed = event.content.minimal == "ReportFailed"
    if failed and (state.retry_at is None or state.is_retry_due(at.now)):
        state = _retry_later(state, at)
    elif not failed and not state.rejected:
        state = replace(state, retry_at=None, retries=0)
    state = _compared(state, event.content, at.now, event.changed_at or at.stamp)
    if event.urgent and state.pending:
        return replace(state, pending=replace(state.pending, due=at.now))
    return state


def _compared(state: ReporterState, content: ReportContent, now: float, stamp: str) -> ReporterState:
    """Compare the present content with the one sent last. `stamp`: time of a change that was not known before."""
    accepted, sent = state.accepted, state.sent
    last = sent.content if sent else state.rejected_content or (accepted.content if accepted else None)
    change = classify(last, content)
    if change is Change.NONE and sent:
        sent = replace(sent, read=state.reads)
    elif change is Change.NONE and accepted:
        accepted = replace(accepted, read=state.reads)
    reported = accepted is not None and accepted.content.digest == content.digest
    unbuilt = content.minimal == "ReportFailed" and not reported
    return replace(
        state,
        sent=sent,
        accepted=accepted,
        pending=pending_change(state.pending, change, now, stamp, state.settings.debounce),
        unbuilt_since=(state.unbuilt_since or now) if unbuilt else None,
    )


def _on_observed(state: ReporterState, stored: StoredReport | None, at: Moment) -> ReporterState:
    """Claim again if the stored report is not ours."""
    if not state.owns_name or not state.accepted:
        return state
    if stored is None:
        reason = "the API server no longer holds this agent's report"
    elif stored.session != state.blank.session and stored.epoch >= state.epoch:
        reason = "another agent has written the report of this node"
    else:
        return state
    return replace(state, claim_reason=reason, claim_at=at.now if state.claim_at is None else state.claim_at)


def _on_tick(state: ReporterState, at: Moment) -> Step:
    if state.requesting or state.latest is None or state.due() > at.now:
        return state, None
    if state.claim_at is not None:
        request = events.Claim(state.claim_reason)
        return replace(state, requesting=True, owns_name=False, claim_at=None, claim_reason=None), request
    stamp = state.pending.stamp if state.pending else at.stamp
    return _write(replace(state, pending=None), state.latest, stamp, state.reads)


def _write(state: ReporterState, content: ReportContent, stamp: str, read: int) -> Step:
    request = WriteReport(content, state.epoch, state.sequence + 1, stamp, read)
    return replace(state, requesting=True, sent=request, sequence=request.sequence), request


def _on_stored(state: ReporterState, stored: StoredReport | None, at: Moment) -> ReporterState:
    """Determine epoch, sequence and which report of ours was accepted."""
    stamp = state.sent.stamp if state.sent else at.stamp
    ours = stored is not None and stored.session == state.blank.session
    state = _same_epoch(state, stored) if stored and ours else _next_epoch(state, stored)
    state = replace(state, requesting=False, owns_name=True, sent=None)
    if state.latest:
        state = _compared(state, state.latest, at.now, stamp)
    unchanged = state.accepted and not state.pending and state.refresh_at > at.now
    return _succeeded(state) if unchanged else state


def _next_epoch(state: ReporterState, stored: StoredReport | None) -> ReporterState:
    epoch = max(stored.epoch if stored else 0, state.accepted_epoch) + 1
    # A claim of unknown outcome keeps its sequence: if it arrives late, it is still older than the next report.
    return replace(state, sequence=state.sequence if epoch == state.epoch else 0, epoch=epoch, accepted=None)


def _same_epoch(state: ReporterState, stored: StoredReport) -> ReporterState:
    if state.sent and stored.sequence == state.sent.sequence:
        state = replace(state, accepted=state.sent)
    elif state.accepted and state.accepted.sequence != stored.sequence:
        state = replace(state, accepted=None)
    elif state.sent:
        # The report in flight may still arrive. Only a later report, sent even without a change, can replace it.
        state = replace(state, refresh_at=0.0)
    sequence = max(state.sequence, stored.sequence)
    return replace(state, epoch=stored.epoch, accepted_epoch=stored.epoch, sequence=sequence)


def _on_accepted(state: ReporterState, sent: WriteReport, at: Moment) -> ReporterState:
    if sent.content.minimal != "ReportRejected":
        state = replace(state, rejected=None, rejected_content=None)
    return _reported(replace(state, accepted=sent, accepted_at=at.stamp), at)


def _on_rejected(state: ReporterState, sent: WriteReport, event: events.Rejected, at: Moment) -> Step:
    """Write the minimal report in place of one that the API server rejects, unless it holds that one already."""
    state = replace(state, rejected=event.reason, rejected_content=sent.content)
    state = _retry_later(state, at, event.retry_after)
    small = minimal(sent.content.report, "ReportRejected")
    if state.accepted and state.accepted.content.digest == small.digest:
        return _reported(replace(state, accepted=replace(state.accepted, read=sent.read)), at), None
    # The older report claims too much. Until the minimal one is stored, no heartbeat may confirm it.
    return _write(replace(state, accepted=None), small, sent.stamp, sent.read)


def _retry_later(state: ReporterState, at: Moment, retry_after: float = 0.0) -> ReporterState:
    pause = _pause(state, state.retries, _RETRY_INTERVALS * state.settings.interval, at.jitter, retry_after)
    return replace(state, retry_at=at.now + pause, retries=state.retries + 1)


def _reported(state: ReporterState, at: Moment) -> ReporterState:
    """The API server holds the state that was sent, or the minimal report in its place."""
    refresh_at = at.now + state.settings.refresh_seconds
    state = replace(state, requesting=False, accepted_epoch=state.epoch, sent=None, refresh_at=refresh_at)
    return _succeeded(_compared(state, state.latest, at.now, at.stamp) if state.latest else state)


def _succeeded(state: ReporterState) -> ReporterState:
    return replace(state, problem=None, failures=0, defect_since=None)


def _on_failure(state: ReporterState, event: events.Failed, at: Moment) -> ReporterState:
    """Keep the claim until the pause is over: heartbeats confirm the accepted report meanwhile."""
    pause = _pause(state, state.failures, state.settings.interval, at.jitter, event.retry_after)
    return replace(
        state,
        requesting=False,
        claim_at=at.now + pause,
        failures=state.failures + 1,
        problem=event.reason or state.problem,
        defect_since=(state.defect_since or at.now) if event.internal else state.defect_since,
    )


def _pause(state: ReporterState, failures: int, limit: float, jitter: float, at_least: float) -> float:
    return max(pause_after(failures, state.settings.backoff_seconds, limit) * jitter, min(at_least, limit))
