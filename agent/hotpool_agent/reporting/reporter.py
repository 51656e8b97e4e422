"""Sending of the node's reports: claims an epoch, then sends one report at a time, in order (A12, B5-B9, B11, B12).

Decides by `ownership`, `debounce` and `report_builder`; I/O through `node_resources`. After an unknown outcome it reads
the stored report before it decides. Must not know services.
"""

import asyncio
import json
from typing import Final

import structlog

from hotpool.api.meta import timestamp
from hotpool.common.backoff import Backoff
from hotpool_agent.kube.errors import KubeError, MissingError, RejectedError, StaleError, internal_error
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.metrics import Metrics
from hotpool_agent.notifier import Notifier
from hotpool_agent.reporting.debounce import Debouncer
from hotpool_agent.reporting.failures import ReportFailures
from hotpool_agent.reporting.name_conflict_event import NameConflictEvent
from hotpool_agent.reporting.other_agent import NodeNameConflictError, wait_silent
from hotpool_agent.reporting.ownership import OwnershipDecision, StoredReport, decide, parse_stored
from hotpool_agent.reporting.report_builder import AgentInfo, Change, ReportContent, classify, minimal, stamped
from hotpool_agent.reporting.report_source import ReportSource
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)
_RETRY_INTERVALS: Final = 4
"""Longest pause between two attempts to send a rejected report, in intervals H."""


class ReclaimRequiredError(Exception):
    """The stored report is missing or of another agent: read it and claim again."""


class Reporter:
    """The only writer of the node's report."""

    source: ReportSource
    """Contents of reports. Must be set first: it reads the parts that have this reporter."""

    def __init__(self, resources: NodeResources, info: AgentInfo, settings: Settings, metrics: Metrics) -> None:
        self.epoch = 0
        self.sequence = 0
        self.problem: str | None = "not connected yet"
        self.rejected: str | None = None
        """Error for which the API server rejected the last report, so that it holds a minimal one (requirement B11)."""
        self.accepted_at: str | None = None
        self._notifier = Notifier()
        self._resources = resources
        self._info = info
        self._settings = settings
        self._metrics = metrics
        self._debouncer = Debouncer(settings.debounce)
        self._backoff = Backoff(settings.backoff_seconds, settings.interval)
        self._failures = ReportFailures(settings.backoff_seconds, _RETRY_INTERVALS * settings.interval)
        self._conflict_event = NameConflictEvent(resources, info)
        self._wake = asyncio.Event()
        self._owns_name = False
        self._reclaim_reason: str | None = None
        self._accepted: tuple[ReportContent, int] | None = None
        """Content of our report that the API server holds, and its sequence."""
        self._rejected: ReportContent | None = None
        """Whole report for which the API server holds a minimal one."""
        self._accepted_epoch = 0
        """Last epoch in which a report was accepted; 0: none yet."""
        self._sent: ReportContent | None = None
        """Content of the report in flight or of unknown outcome."""
        self._sent_stamp: str | None = None
        self._latest: ReportContent | None = None
        self._changed_at: str | None = None
        """Time of the first change that `_latest` does not contain yet."""
        self._refresh_at = 0.0
        self._reads = self._sent_read = self._accepted_read = 0
        """Numbers of the last reading of the content, and of the readings that were sent and accepted last."""

    def holder(self) -> str | None:
        """Return the holder identity for the Lease, or None unless a report of the current epoch is accepted (B8).

        Also None if this agent could not report the present state for 10 s because of an error of its own (A12).
        """
        if self._owns_name and self._accepted and not self.is_failing():
            return f"{self._info.instance}/{self.epoch}"
        return None

    async def wait_accepted(self) -> None:
        """Return when `holder` returns an identity."""
        await self._notifier.wait_for(lambda: self.holder() is not None)

    def is_failing(self) -> bool:
        """Return True if heartbeats are stopped because of an error of this agent."""
        return self._failures.stop_heartbeats(self._clock())

    def is_current(self) -> bool:
        """Return True if, as far as is known, the API server holds the report of the present state."""
        if not self._owns_name or self._accepted is None or self.problem or self.rejected:
            return False
        content = self.source.read()
        return self.source.problem is None and classify(self._accepted[0], content) is Change.NONE

    def changed(self) -> None:
        """Note that the content may have changed. Cheap: many calls cause one comparison."""
        if self._changed_at is None:
            self._changed_at = timestamp()
            asyncio.get_running_loop().call_soon(self._read_content)

    def on_stored_report(self, stored: StoredReport | None) -> None:
        """Claim again if the stored report, as the watch delivered it, is not ours."""
        if not self._owns_name or not self._accepted:
            return
        if stored is None:
            self._request_reclaim("the API server no longer holds this agent's report")
        elif stored.session != self._info.session and stored.epoch >= self.epoch:
            self._request_reclaim("another agent has written the report of this node")

    async def wait_withdrawn(self, service: str) -> None:
        """Return when neither the accepted report nor one in flight offers the service (requirement A9)."""
        await self._notifier.wait_for(lambda: self._is_withdrawn(service))

    async def flush(self) -> None:
        """Send pending changes without waiting for D. Return when the API server holds this state or a later one."""
        self._read_content()
        this_read = self._reads
        self._debouncer.expedite(self._clock())
        await self._notifier.wait_for(lambda: self._owns_name and self._accepted_read >= this_read)

    async def run(self) -> None:
        """Claim and report until cancelled."""
        while True:
            try:
                await self._claim()
                await self._send_forever()
            except ReclaimRequiredError as error:
                _LOG.warning("claiming the node again", reason=str(error))
            except (MissingError, StaleError) as error:
                # The object was deleted, or holds a newer report: read, then decide (requirements B7, B8).
                _LOG.warning("report not stored", error=str(error))
                await asyncio.sleep(self._backoff.pause())
            except NodeNameConflictError as error:
                self._set_problem(error)
                await self._conflict_event.publish(str(error))
                await asyncio.sleep(self._settings.interval)
            except KubeError as error:
                # After a 401 `session` reloads the credentials before the next request.
                self._set_problem(error)
                await asyncio.sleep(self._backoff.pause(error.retry_after))
            except Exception as error:  # noqa: BLE001 - the agent stays alive, and stops confirming its last report
                self._set_internal_problem(error)
                await asyncio.sleep(self._backoff.pause())
            finally:
                self._owns_name = False

    def _set_problem(self, error: KubeError) -> None:
        if self.problem != str(error):
            _LOG.warning("not reporting", error=str(error))
        self.problem = str(error)

    def _set_internal_problem(self, error: Exception) -> None:
        if self.problem != internal_error(error):
            _LOG.error("not reporting because of an internal error", exc_info=error)
        self.problem = internal_error(error)
        self._failures.on_internal_error(self._clock())

    async def _claim(self) -> None:
        """Read the stored report; determine epoch, sequence and which report of ours was accepted."""
        self._reclaim_reason = None
        stored = parse_stored(await self._resources.ensure_capability())
        decision = decide(stored, self._info.instance, self._info.session, self._accepted_epoch)
        if stored and decision is OwnershipDecision.WATCH:
            await wait_silent(self._resources, stored)
        if stored and decision is OwnershipDecision.CONTINUE:
            self._resume_epoch(stored)
        else:
            self._claim_next_epoch(stored)
        self._sent = None
        self._owns_name = True
        self._read_content()

    def _claim_next_epoch(self, stored: StoredReport | None) -> None:
        epoch = max(stored.epoch if stored else 0, self._accepted_epoch) + 1
        # A claim of unknown outcome keeps its sequence: if it arrives late, it is still older than the next report.
        self.sequence = self.sequence if epoch == self.epoch else 0
        self.epoch = epoch
        self._accepted = None

    def _resume_epoch(self, stored: StoredReport) -> None:
        if self._sent and stored.sequence == self.sequence:
            self._accepted, self._accepted_read = (self._sent, self.sequence), self._sent_read
            self._sent_stamp = None
        elif self._accepted and self._accepted[1] != stored.sequence:
            self._accepted = None
        elif self._sent:
            # The report in flight may still arrive. Only a later report, sent even without a change, can replace it.
            self._refresh_at = 0.0
        self.epoch = self._accepted_epoch = stored.epoch
        self.sequence = max(self.sequence, stored.sequence)

    async def _send_forever(self) -> None:
        if self._accepted and not self._debouncer.pending and self._refresh_at > self._clock():
            self._succeeded()
        while True:
            await self._wait_until_due()
            await self._send()

    async def _wait_until_due(self) -> None:
        while True:
            if self._reclaim_reason:
                raise ReclaimRequiredError(self._reclaim_reason)
            if self._changed_at or self._failures.is_retry_due(self._clock()):
                self._read_content()
            pause = self._next_send() - self._clock()
            if pause <= 0 or not self._accepted:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _next_send(self) -> float:
        """Return the time of the next report, or of the next attempt to build one."""
        times = (self._debouncer.due(), self._refresh_at, self._failures.retry_at)
        return min(time for time in times if time is not None)

    async def _send(self) -> None:
        content = self._latest or self.source.read()
        pending = self._debouncer.take()
        stamp = self._sent_stamp or (pending.stamp if pending else timestamp())
        self._sent, self._sent_stamp, self._sent_read = content, stamp, self._reads
        try:
            await self._write(content, stamp)
        except RejectedError as error:
            if content.minimal:
                raise
            await self._replace_rejected(content, error, stamp)
        else:
            self.rejected = self._rejected = None
            self._accepted = (content, self.sequence)
            self._on_accepted()
        self._read_content()

    async def _replace_rejected(self, content: ReportContent, error: RejectedError, stamp: str) -> None:
        """Write the minimal report in place of one that the API server rejects, unless it holds that one already."""
        if self.rejected != (text := f"{error}; reporting no type as ready"):
            _LOG.error("API server rejects the report; reporting no type as ready", error=str(error))
        self.rejected, self._rejected = text, content
        self._failures.on_rejection(self._clock(), error.retry_after)
        small = minimal(content.report, "ReportRejected")
        if not self._accepted or self._accepted[0].digest != small.digest:
            # The older report claims too much. Until the minimal one is stored, no heartbeat may confirm it.
            self._accepted, self._sent = None, small
            await self._write(small, stamp)
            self._accepted = (small, self.sequence)
        self._on_accepted()

    def _on_accepted(self) -> None:
        self._accepted_read, self._accepted_epoch = self._sent_read, self.epoch
        self._sent = self._sent_stamp = None
        self._refresh_at = self._clock() + self._settings.refresh_seconds
        self._succeeded()

    async def _write(self, content: ReportContent, stamp: str) -> None:
        self.sequence += 1
        report = stamped(content, self.epoch, self.sequence, stamp)
        with self._metrics.report(len(json.dumps(report))):
            await self._resources.write_report(report)
        self.accepted_at = timestamp()
        _LOG.info("report stored", epoch=self.epoch, sequence=self.sequence, summary=content.report.summary)

    def _succeeded(self) -> None:
        self.problem = None
        self._failures.on_success()
        self._backoff.reset()
        self._notifier.notify()

    def _read_content(self) -> None:
        """Read the present content, and compare it with the content sent last."""
        changed_at, self._changed_at = self._changed_at, None
        self._latest = self.source.read()
        self._reads += 1
        before = self._sent or self._rejected or (self._accepted[0] if self._accepted else None)
        change = classify(before, self._latest)
        failed, rejected = self.source.problem is not None, self._rejected is not None
        reported = self._accepted is not None and self._accepted[0].digest == self._latest.digest
        if self._failures.on_build(self._clock(), failed=failed, reported=reported, rejected=rejected):
            self._notifier.notify()
        if change is Change.NONE and self._sent:
            self._sent_read = self._reads
        elif change is Change.NONE:
            self._accepted_read = self._reads
        self._debouncer.add(change, self._clock(), changed_at or timestamp())
        self._wake.set()

    def _request_reclaim(self, reason: str) -> None:
        self._reclaim_reason = reason
        self._wake.set()

    def _is_withdrawn(self, service: str) -> bool:
        if not self._owns_name or self._accepted is None:
            return False
        return not self._accepted[0].offers(service) and not (self._sent and self._sent.offers(service))

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()
