"""Sending of the node's reports: performs the actions of `reporter_state` (A12, B5-B9, B11, B12). I/O.

Must not decide, and must not know services.
"""

import asyncio
import json
import random
from typing import Final

import structlog

from hotpool.api.meta import timestamp
from hotpool_agent.kube.errors import KubeError, MissingError, RejectedError, StaleError, internal_error
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.metrics import Metrics
from hotpool_agent.notifier import Notifier
from hotpool_agent.reporting import reporter_events as events
from hotpool_agent.reporting.failures import Pauses, ReportFailures
from hotpool_agent.reporting.name_conflict_event import NameConflictEvent
from hotpool_agent.reporting.other_agent import NodeNameConflictError, wait_silent
from hotpool_agent.reporting.ownership import StoredReport, parse_stored
from hotpool_agent.reporting.report_builder import AgentInfo, Change, classify, stamped
from hotpool_agent.reporting.report_source import ReportSource
from hotpool_agent.reporting.reporter_events import Event
from hotpool_agent.reporting.reporter_state import Phase, ReporterState, Timing, step
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)
_RETRY_INTERVALS: Final = 4
"""Longest pause between two attempts to send a rejected report, in intervals H."""


class Reporter:
    """The only writer of the node's report."""

    source: ReportSource
    """Contents of reports. Must be set first: it reads the parts that have this reporter."""

    def __init__(self, resources: NodeResources, info: AgentInfo, settings: Settings, metrics: Metrics) -> None:
        first = settings.backoff_seconds
        self.state = ReporterState(
            instance=info.instance,
            session=info.session,
            timing=Timing(settings.interval, settings.debounce, settings.refresh_seconds),
            pauses=Pauses(first, settings.interval),
            failures=ReportFailures(Pauses(first, _RETRY_INTERVALS * settings.interval)),
        )
        self._resources = resources
        self._metrics = metrics
        self._conflict_event = NameConflictEvent(resources, info)
        self._notifier = Notifier()
        """Notified after each step."""
        self._request: events.Request | None = None
        self._changed_at: str | None = None
        """Time of the first change since the content was read."""

    @property
    def problem(self) -> str | None:
        """Reason why the present state is not reported."""
        return self.state.problem

    def holder(self) -> str | None:
        """Return the holder identity for the Lease, or None while no heartbeat may be sent."""
        return self.state.holder(_now())

    async def wait_accepted(self) -> None:
        """Return when `holder` returns an identity."""
        await self._notifier.wait_for(lambda: self.holder() is not None)

    def is_failing(self) -> bool:
        """Return True if heartbeats are stopped because of an error of this agent."""
        return self.state.failures.stop_heartbeats(_now())

    def is_current(self) -> bool:
        """Return True if, as far as is known, the API server holds the report of the present state."""
        state = self.state
        if not state.owns_name or state.accepted is None or state.problem or state.rejected:
            return False
        content = self.source.read()
        return self.source.problem is None and classify(state.accepted[0], content) is Change.NONE

    def changed(self) -> None:
        """Note that the content may have changed. Cheap: many calls cause one comparison."""
        if self._changed_at is None:
            self._changed_at = timestamp()
            asyncio.get_running_loop().call_soon(self._read_content)

    def on_stored_report(self, stored: StoredReport | None) -> None:
        """Claim again if the stored report, as the watch delivered it, is not ours."""
        self._step(events.Observed(stored))

    async def wait_withdrawn(self, service: str) -> None:
        """Return when neither the accepted report nor one in flight offers the service (requirement A9)."""
        await self._notifier.wait_for(lambda: self.state.is_withdrawn(service))

    async def flush(self) -> None:
        """Send pending changes without waiting for D. Return when the API server holds this state or a later one."""
        self._read_content()
        this_read = self.state.reads
        self._step(events.Expedited())
        await self._notifier.wait_for(lambda: self.state.is_reported(this_read))

    async def run(self) -> None:
        """Claim and report until cancelled."""
        while True:
            try:
                request = await self._next_request()
                self._step(await self._perform(request))
            except Exception as error:  # noqa: BLE001 - the agent stays alive, and stops confirming its last report
                self._step(self._internal_failure(error))

    async def _next_request(self) -> events.Request:
        while True:
            state = self.state
            if state.phase is not Phase.PAUSED and (self._changed_at or state.failures.is_retry_due(_now())):
                self._read_content()
            self._step(events.Tick())
            if request := self._request:
                self._request = None
                return request
            await self._notifier.wait(self.state.due() - _now())

    def _step(self, event: Event) -> None:
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards no secret
        self.state, actions = step(self.state, event, events.Moment(_now(), timestamp(), jitter))
        for action in actions:
            if isinstance(action, events.ReadContent):
                self._read_content()
            else:
                self._request = action
        self._notifier.notify()

    def _read_content(self) -> None:
        """Read the present content, and compare it with the content sent last."""
        changed_at, self._changed_at = self._changed_at, None
        content = self.source.read()
        self._step(events.ContentRead(content, self.source.problem is not None, changed_at))

    async def _perform(self, request: events.Request) -> Event:
        """Return the event that answers the request."""
        try:
            match request:
                case events.ReadStored(reason):
                    if reason:
                        _LOG.warning("claiming the node again", reason=reason)
                    return events.StoredRead(parse_stored(await self._resources.ensure_capability()))
                case events.ObserveOther(stored):
                    await wait_silent(self._resources, stored)
                    return events.OtherSilent(stored)
                case events.PublishConflict(reason):
                    await self._conflict_event.publish(reason)
                    return events.ConflictPublished()
                case events.WriteReport():
                    return await self._write(request)
        except KubeError as error:
            return self._failure(error)

    async def _write(self, request: events.WriteReport) -> Event:
        report = stamped(request.content, request.epoch, request.sequence, request.stamp)
        try:
            with self._metrics.report(len(json.dumps(report))):
                await self._resources.write_report(report)
        except RejectedError as error:
            if request.content.minimal:
                raise
            if self.state.rejected != (reason := f"{error}; reporting no type as ready"):
                _LOG.error("API server rejects the report; reporting no type as ready", error=str(error))
            return events.Rejected(request, reason, error.retry_after)
        summary = request.content.report.summary
        _LOG.info("report stored", epoch=request.epoch, sequence=request.sequence, summary=summary)
        return events.Accepted(request)

    def _failure(self, error: KubeError) -> Event:
        if isinstance(error, MissingError | StaleError):
            # The object was deleted, or holds a newer report: read, then decide (requirements B7, B8).
            _LOG.warning("report not stored", error=str(error))
            return events.NotStored()
        if self.problem != str(error):
            _LOG.warning("not reporting", error=str(error))
        if isinstance(error, NodeNameConflictError):
            return events.NameTaken(str(error))
        # After a 401 `session` reloads the credentials before the next request.
        return events.Failed(str(error), error.retry_after)

    def _internal_failure(self, error: Exception) -> Event:
        if self.problem != internal_error(error):
            _LOG.error("not reporting because of an internal error", exc_info=error)
        return events.Failed(internal_error(error), internal=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
