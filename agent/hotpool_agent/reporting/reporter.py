"""Sending of the node's reports: performs the requests of `reporter_state` (A12, B5-B9, B11, B12). I/O.

Must not decide when or what to send, and must not know services.
"""

import asyncio
import json
import random
from typing import Final

import structlog

from hotpool.api.capability import Report
from hotpool.api.meta import timestamp
from hotpool_agent.kube.errors import KubeError, MissingError, RejectedError, StaleError
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.retry_loop import log_failure
from hotpool_agent.metrics import Metrics
from hotpool_agent.notifier import Notifier
from hotpool_agent.reporting import reporter_events as events
from hotpool_agent.reporting.name_conflict import NameConflict
from hotpool_agent.reporting.ownership import StoredReport, must_observe, parse_stored
from hotpool_agent.reporting.report_builder import Change, classify, stamped
from hotpool_agent.reporting.report_source import ReportSource
from hotpool_agent.reporting.reporter_events import Event, Request
from hotpool_agent.reporting.reporter_state import ReporterState, step
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)


class Reporter:
    """The only writer of the node's report."""

    source: ReportSource
    """Contents of reports. Must be set first: it reads the parts that have this reporter."""

    def __init__(self, resources: NodeResources, blank: Report, settings: Settings, metrics: Metrics) -> None:
        self.state = ReporterState(blank, settings)
        self._resources = resources
        self._metrics = metrics
        self._name_conflict = NameConflict(resources, blank)
        self._notifier = Notifier()
        """Notified after each step."""
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
        return self.state.fails(_now())

    def is_current(self) -> bool:
        """Return True if, as far as is known, the API server holds the report of the present state."""
        state = self.state
        if not state.owns_name or state.accepted is None or state.problem or state.rejected:
            return False
        content = self.source.read()
        return self.source.problem is None and classify(state.accepted.content, content) is Change.NONE

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
        self._read_content(urgent=True)
        this_read = self.state.reads
        await self._notifier.wait_for(lambda: self.state.is_reported(this_read))

    async def run(self) -> None:
        """Claim and report until cancelled."""
        self._read_content()
        request: Request | None = None
        while True:
            try:
                request = self._step(await self._perform(request or await self._next_request()))
            except Exception as error:  # noqa: BLE001 - the agent stays alive, and stops confirming its last report
                request = self._step(self._failure(error))

    async def _next_request(self) -> Request:
        while True:
            if self.state.is_retry_due(_now()):
                self._read_content()
            if request := self._step(events.Tick()):
                return request
            await self._notifier.wait(self.state.due() - _now())

    def _step(self, event: Event) -> Request | None:
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards no secret
        self.state, request = step(self.state, event, events.Moment(_now(), timestamp(), jitter))
        self._notifier.notify()
        return request

    def _read_content(self, *, urgent: bool = False) -> None:
        """Read the present content, and compare it with the content sent last."""
        changed_at, self._changed_at = self._changed_at, None
        self._step(events.ContentRead(self.source.read(), changed_at, urgent))

    async def _perform(self, request: Request) -> Event:
        """Return the event that answers the request. Raises KubeError."""
        if isinstance(request, events.WriteReport):
            return await self._write(request)
        if request.reason:
            _LOG.warning("claiming the node again", reason=request.reason)
        stored = parse_stored(await self._resources.ensure_capability())
        own = self.state.blank
        if stored and must_observe(stored, own.instance, own.session, self.state.accepted_epoch):
            await self._name_conflict.wait_silent(stored)
        return events.StoredRead(stored)

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
            return events.Rejected(reason, error.retry_after)
        summary = request.content.report.summary
        _LOG.info("report stored", epoch=request.epoch, sequence=request.sequence, summary=summary)
        return events.Accepted()

    def _failure(self, error: Exception) -> events.Failed:
        if isinstance(error, MissingError | StaleError):
            # The object was deleted, or holds a newer report: read, then decide (requirements B7, B8).
            _LOG.warning("report not stored", error=str(error))
            return events.Failed(None)
        # After a 401 the client reloads the credentials before the next request.
        reason = log_failure("not reporting", error, self.problem)
        if isinstance(error, KubeError):
            return events.Failed(reason, error.retry_after)
        return events.Failed(reason, internal=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
