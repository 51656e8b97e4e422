"""Sends the node's report: claims an epoch, then one report at a time, in order (requirement B5-B9, B11, B12).

Decides with `claim`, `throttle` and `report`; talks through `publish`. After an outcome that is not known it reads,
then decides. Must not know services.
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
from hotpool_agent.reporting.ownership import ActivityStamp, OwnershipDecision, StoredReport, decide, stored_in
from hotpool_agent.reporting.report_builder import AgentInfo, Change, ReportContent, classify, minimal, stamped
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)
_MAX_READS: Final = 12
"""How often the other agent's signs of life are read in one Lease duration."""


class NodeNameConflictError(KubeError):
    """Another live agent has this node's name (requirement B12)."""


class ReclaimRequiredError(Exception):
    """What was accepted is not there any more, or not ours: read and claim again."""


class Reporter:
    """The only writer of the node's report."""

    def __init__(
        self,
        cluster: NodeResources,
        facts: AgentInfo,
        settings: Settings,
        content: Callable[[], ReportContent],
        metrics: Metrics,
    ) -> None:
        self.epoch = 0
        self.sequence = 0
        self.problem: str | None = "not connected yet"
        self.rejected: str | None = None
        """Why the API server holds the report that nothing is ready in place of the last one (requirement B11)."""
        self.accepted_at: str | None = None
        self.notifier = Notifier()
        self._cluster = cluster
        self._info = facts
        self._settings = settings
        self._content = content
        self._metrics = metrics
        self._debouncer = Debouncer(settings.debounce)
        self._backoff = Backoff(settings.backoff_seconds, settings.interval)
        self._conflict_event = NameConflictEvent(cluster, facts)
        self._wake = asyncio.Event()
        self._owns_name = False
        self._again: str | None = None
        self._accepted: tuple[ReportContent, int] | None = None
        """What the API server holds of us, and its sequence."""
        self._accepted_epoch = 0
        """The last epoch in which a report was accepted; 0: none yet."""
        self._sent: ReportContent | None = None
        """In flight, or of unknown outcome."""
        self._sent_stamp: str | None = None
        self._now: ReportContent | None = None
        self._seen: str | None = None
        """When the first change was seen that `_now` does not show yet."""
        self._refresh_at = 0.0
        self._reads = self._sent_look = self._accepted_look = 0
        """Numbers of the last look, and of those that were sent and accepted last."""

    def holder(self) -> str | None:
        """The identity for the Lease, while a report of the current epoch is accepted (requirement B8)."""
        return f"{self._info.instance}/{self.epoch}" if self._owns_name and self._accepted else None

    def current(self) -> bool:
        """Whether the API server holds the report of this moment, as far as is known."""
        if not self._owns_name or self._accepted is None or self.problem or self.rejected:
            return False
        return classify(self._accepted[0], self._content()) is Change.NONE

    def changed(self) -> None:
        """The report may differ from now on. Cheap: many calls become one look."""
        if self._seen is None:
            self._seen = timestamp()
            asyncio.get_running_loop().call_soon(self._read_stored)

    def observe(self, stored: StoredReport | None) -> None:
        """What the watch on the own object shows: claim again if our report is not in it."""
        if not self._owns_name or not self._accepted:
            return
        if stored is None:
            self._restart("our report is gone from the API server")
        elif stored.session != self._info.session and stored.epoch >= self.epoch:
            self._restart("another agent has written this node's report")

    async def withdrawn(self, service: str) -> None:
        """Return when neither the accepted report nor one on its way offers the service (requirement A9)."""
        await self.notifier.wait_for(lambda: self._is_withdrawn(service))

    async def flush(self) -> None:
        """Send what is pending without waiting for D; return when the API server holds this state or a later one."""
        self._read_stored()
        mark = self._reads
        self._debouncer.expedite(self._clock())
        await self.notifier.wait_for(lambda: self._owns_name and self._accepted_look >= mark)

    async def run(self) -> None:
        """Report for ever."""
        while True:
            try:
                await self._claim()
                await self._send_forever()
            except ReclaimRequiredError as error:
                _LOG.warning("reporting again", reason=str(error))
            except (MissingError, StaleError) as error:
                # Deleted, or refused for good: read, then decide (requirements B7, B8).
                _LOG.warning("report not stored", error=str(error))
                await asyncio.sleep(self._backoff.pause())
            except NodeNameConflictError as error:
                self._changed(error)
                await self._conflict_event.publish(str(error))
                await asyncio.sleep(self._settings.interval)
            except KubeError as error:
                # Credentials are `session`'s matter: after a 401 it reads them again before the next request.
                self._changed(error)
                await asyncio.sleep(self._backoff.pause(error.pause))
            finally:
                self._owns_name = False

    def _changed(self, error: KubeError) -> None:
        if self.problem != str(error):
            _LOG.warning("not reporting", error=str(error))
        self.problem = str(error)

    async def _claim(self) -> None:
        """Read what is stored and settle on epoch, sequence and what of ours was accepted."""
        self._again = None
        stored = stored_in(await self._cluster.ensure_capability())
        decision = decide(stored, self._info.instance, self._info.session, self._accepted_epoch)
        if stored and decision is OwnershipDecision.WATCH:
            await self._observe_other_agent(stored)
        if stored and decision is OwnershipDecision.CONTINUE:
            self._continue(stored)
        else:
            self._claim_next(stored)
        self._sent = None
        self._owns_name = True
        self._read_stored()

    def _claim_next(self, stored: StoredReport | None) -> None:
        epoch = max(stored.epoch if stored else 0, self._accepted_epoch) + 1
        # A claim that never got through goes on with its sequence, so that a late arrival of it stays an older one.
        self.sequence = self.sequence if epoch == self.epoch else 0
        self.epoch = epoch
        self._accepted = None

    def _continue(self, stored: StoredReport) -> None:
        if self._sent and stored.sequence == self.sequence:
            self._accepted, self._accepted_look = (self._sent, self.sequence), self._sent_look
            self._sent_stamp = None
        elif self._accepted and self._accepted[1] != stored.sequence:
            self._accepted = None
        elif self._sent:
            # It may still arrive. Only a later report, sent even if nothing has changed, keeps it from staying.
            self._refresh_at = 0.0
        self.epoch = self._accepted_epoch = stored.epoch
        self.sequence = max(self.sequence, stored.sequence)

    async def _observe_other_agent(self, stored: StoredReport) -> None:
        """Watch the other agent for one of its Lease durations; raises TakenError when it is alive (see `claim`)."""
        duration = 3 * stored.interval
        before = await self._activity()
        for _ in range(_MAX_READS):
            await asyncio.sleep(duration / _MAX_READS)
            if await self._activity() != before:
                raise NodeNameConflictError(
                    f"node name {self._cluster.node!r} belongs to another live agent (instance {stored.instance}); "
                    "this one does not report. Give one of the two another --node"
                )

    async def _activity(self) -> ActivityStamp:
        stored = stored_in(await self._cluster.read_capability())
        renew_time = await self._cluster.lease_renew_time()
        return ActivityStamp(stored.epoch if stored else 0, stored.sequence if stored else 0, renew_time)

    async def _send_forever(self) -> None:
        if self._accepted and not self._debouncer.pending and self._refresh_at > self._clock():
            self._succeeded()
        while True:
            await self._due()
            await self._send()

    async def _due(self) -> None:
        while True:
            if self._again:
                raise ReclaimRequiredError(self._again)
            if self._seen:
                self._read_stored()
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
        what = self._now or self._content()
        pending = self._debouncer.take()
        stamp = self._sent_stamp or (pending.stamp if pending else timestamp())
        self._sent, self._sent_stamp, self._sent_look = what, stamp, self._reads
        try:
            await self._write(what, stamp)
            self.rejected = None
        except RejectedError as error:
            self.rejected = f"{error}; reporting that nothing is ready"
            _LOG.error("the API server rejects the report; reporting that nothing is ready", error=str(error))
            # Until this one is stored the older report says too much: no heartbeat confirms it any more.
            self._accepted = None
            await self._write(minimal(what.report), stamp)
        self._accepted, self._accepted_look = (what, self.sequence), self._sent_look
        self._accepted_epoch = self.epoch
        self._sent = self._sent_stamp = None
        self.accepted_at = timestamp()
        self._refresh_at = self._clock() + self._settings.refresh_seconds
        self._succeeded()
        self._read_stored()

    async def _write(self, what: ReportContent, stamp: str) -> None:
        self.sequence += 1
        report = stamped(what, self.epoch, self.sequence, stamp)
        with self._metrics.report(len(json.dumps(report))):
            await self._cluster.write_report(report)
        _LOG.info("reported", epoch=self.epoch, sequence=self.sequence, summary=what.report.summary)

    def _succeeded(self) -> None:
        self.problem = None
        self._backoff.reset()
        self.notifier.notify()

    def _read_stored(self) -> None:
        """Compare the present state with what was sent last."""
        seen, self._seen = self._seen, None
        self._now = self._content()
        self._reads += 1
        before = self._sent or (self._accepted[0] if self._accepted else None)
        change = classify(before, self._now)
        if change is Change.NONE and self._sent:
            self._sent_look = self._reads
        elif change is Change.NONE:
            self._accepted_look = self._reads
        self._debouncer.add(change, self._clock(), seen or timestamp())
        self._wake.set()

    def _restart(self, reason: str) -> None:
        self._again = reason
        self._wake.set()

    def _is_withdrawn(self, service: str) -> bool:
        if not self._owns_name or self._accepted is None:
            return False
        return not self._accepted[0].offers(service) and not (self._sent and self._sent.offers(service))

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()
