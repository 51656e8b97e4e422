"""Sending of the node's reports: claims an epoch, then sends one report at a time, in order (B5-B9, B11, B12).

Decides by `ownership`, `debounce` and `report_builder`; I/O through `node_resources`. After an unknown outcome it reads
the stored report before it decides. Must not know services.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Final

import structlog

from hotpool.api.meta import timestamp
from hotpool.common.backoff import Backoff
from hotpool_agent.kube.errors import KubeError, MissingError, RejectedError, StaleError
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.metrics import Metrics
from hotpool_agent.notifier import Notifier
from hotpool_agent.reporting.debounce import Debouncer
from hotpool_agent.reporting.name_conflict_event import NameConflictEvent
from hotpool_agent.reporting.ownership import ActivityStamp, OwnershipDecision, StoredReport, decide, parse_stored
from hotpool_agent.reporting.report_builder import AgentInfo, Change, ReportContent, classify, minimal, stamped
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)
_ACTIVITY_READS: Final = 12
"""Number of times that the other agent's activity is read in one Lease duration."""


class NodeNameConflictError(KubeError):
    """Another live agent owns this node's name (requirement B12)."""


class ReclaimRequiredError(Exception):
    """The stored report is missing or of another agent: read it and claim again."""


class Reporter:
    """The only writer of the node's report."""

    def __init__(
        self,
        resources: NodeResources,
        info: AgentInfo,
        settings: Settings,
        content: Callable[[], ReportContent],
        metrics: Metrics,
    ) -> None:
        self.epoch = 0
        self.sequence = 0
        self.problem: str | None = "not connected yet"
        self.rejected: str | None = None
        """Error for which the API server rejected the last report, so that it holds a minimal one (requirement B11)."""
        self.accepted_at: str | None = None
        self.notifier = Notifier()
        self._resources = resources
        self._info = info
        self._settings = settings
        self._content = content
        self._metrics = metrics
        self._debouncer = Debouncer(settings.debounce)
        self._backoff = Backoff(settings.backoff_seconds, settings.interval)
        self._conflict_event = NameConflictEvent(resources, info)
        self._wake = asyncio.Event()
        self._owns_name = False
        self._reclaim_reason: str | None = None
        self._accepted: tuple[ReportContent, int] | None = None
        """Content of our report that the API server holds, and its sequence."""
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
        """Return the holder identity for the Lease, or None unless a report of the current epoch is accepted (B8)."""
        return f"{self._info.instance}/{self.epoch}" if self._owns_name and self._accepted else None

    def is_current(self) -> bool:
        """Return True if, as far as is known, the API server holds the report of the present state."""
        if not self._owns_name or self._accepted is None or self.problem or self.rejected:
            return False
        return classify(self._accepted[0], self._content()) is Change.NONE

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
        await self.notifier.wait_for(lambda: self._is_withdrawn(service))

    async def flush(self) -> None:
        """Send pending changes without waiting for D. Return when the API server holds this state or a later one."""
        self._read_content()
        this_read = self._reads
        self._debouncer.expedite(self._clock())
        await self.notifier.wait_for(lambda: self._owns_name and self._accepted_read >= this_read)

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
            finally:
                self._owns_name = False

    def _set_problem(self, error: KubeError) -> None:
        if self.problem != str(error):
            _LOG.warning("not reporting", error=str(error))
        self.problem = str(error)

    async def _claim(self) -> None:
        """Read the stored report; determine epoch, sequence and which report of ours was accepted."""
        self._reclaim_reason = None
        stored = parse_stored(await self._resources.ensure_capability())
        decision = decide(stored, self._info.instance, self._info.session, self._accepted_epoch)
        if stored and decision is OwnershipDecision.WATCH:
            await self._observe_other_agent(stored)
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

    async def _observe_other_agent(self, stored: StoredReport) -> None:
        """Watch the other agent for one of its Lease durations. Raises NodeNameConflictError if it is alive."""
        duration = 3 * stored.interval
        before = await self._activity()
        for _ in range(_ACTIVITY_READS):
            await asyncio.sleep(duration / _ACTIVITY_READS)
            if await self._activity() != before:
                raise NodeNameConflictError(
                    f"node name {self._resources.node!r} belongs to another live agent (instance {stored.instance}); "
                    "this agent does not report. Start one of the two with another --node"
                )

    async def _activity(self) -> ActivityStamp:
        stored = parse_stored(await self._resources.read_capability())
        renew_time = await self._resources.lease_renew_time()
        return ActivityStamp(stored.epoch if stored else 0, stored.sequence if stored else 0, renew_time)

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
            if self._changed_at:
                self._read_content()
            due = self._debouncer.due()
            at = self._refresh_at if due is None else min(due, self._refresh_at)
            pause = at - self._clock()
            if pause <= 0 or not self._accepted:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _send(self) -> None:
        content = self._latest or self._content()
        pending = self._debouncer.take()
        stamp = self._sent_stamp or (pending.stamp if pending else timestamp())
        self._sent, self._sent_stamp, self._sent_read = content, stamp, self._reads
        try:
            await self._write(content, stamp)
            self.rejected = None
        except RejectedError as error:
            self.rejected = f"{error}; reporting no type as ready"
            _LOG.error("API server rejects the report; reporting no type as ready", error=str(error))
            # The older report claims too much. Until the minimal one is stored, no heartbeat may confirm it.
            self._accepted = None
            await self._write(minimal(content.report), stamp)
        self._accepted, self._accepted_read = (content, self.sequence), self._sent_read
        self._accepted_epoch = self.epoch
        self._sent = self._sent_stamp = None
        self.accepted_at = timestamp()
        self._refresh_at = self._clock() + self._settings.refresh_seconds
        self._succeeded()
        self._read_content()

    async def _write(self, content: ReportContent, stamp: str) -> None:
        self.sequence += 1
        report = stamped(content, self.epoch, self.sequence, stamp)
        with self._metrics.report(len(json.dumps(report))):
            await self._resources.write_report(report)
        _LOG.info("report stored", epoch=self.epoch, sequence=self.sequence, summary=content.report.summary)

    def _succeeded(self) -> None:
        self.problem = None
        self._backoff.reset()
        self.notifier.notify()

    def _read_content(self) -> None:
        """Read the present content, and compare it with the content sent last."""
        changed_at, self._changed_at = self._changed_at, None
        self._latest = self._content()
        self._reads += 1
        before = self._sent or (self._accepted[0] if self._accepted else None)
        change = classify(before, self._latest)
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
