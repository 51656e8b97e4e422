"""What is due, and when: the dirty set, the deadlines, the gate and the audit.

Started by `operator`. What is done for one key is in `phases`. It decides nothing about membership and knows no wire
shape.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

import structlog

from hotpool.clock import Clock
from hotpool.controllers.context import ControllerContext
from hotpool.controllers.dispatch import Controllers
from hotpool.controllers.workqueue import WorkQueue
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.liveness import WatchHealth
from hotpool.core.model import CUSTOM_KINDS, Heartbeat, Identity, Key, Kind, Node
from hotpool.errors import FencedError, NotLeaderError, RejectedError, RetryableError, StaleError
from hotpool.events.recorder import EventRecorder
from hotpool.kube.client import ApiUnavailable, Reader
from hotpool.kube.decode import DecodeError, decode, identify
from hotpool.kube.writer import KubeWriter
from hotpool.observability.hotplug_latency import HotplugLatency
from hotpool.observability.metrics import APPLY, FAILURES, HEARTBEATS, NODES, POOLS, REJECTED, WATCH_UP
from hotpool.projection.publisher import Publisher

log = structlog.get_logger(__name__)

MAX_CONCURRENT_POOLS: Final = 16
"""Pools worked on at the same time."""
MAX_CONCURRENT_GENERATORS: Final = 4
"""Generators worked on at the same time, apart: each makes many pools, and all that is made must be filled too."""
MAX_CONCURRENT_NODES: Final = 8
"""Nodes worked on at the same time, apart: membership must not wait behind its own story."""
RESYNC_SECONDS: Final = 300.0
FIRST_RESYNC_SECONDS: Final = 10.0
"""The first audit comes early: it covers what happened between our listing and the start of the watches."""
_WAIT_SECONDS: Final = 1.0
_LONGEST_SLEEP: Final = 5.0
"""At least this often the loop looks whether the Lease stream is still proven."""
YIELD_INTERVAL_SECONDS: Final = 0.02
_FINISH_SECONDS: Final = 3.0
"""More than one write takes (sinks.kube)."""
_FIRST_BACKOFF: Final = 0.2
_LONGEST_BACKOFF: Final = 30.0


class Manager:
    """One fleet's state and the work on it; lives in one event loop."""

    def __init__(
        self,
        state: ClusterCache,
        reader: Reader,
        kube: KubeWriter,
        mirror: Publisher | None,
        clock: Clock | None = None,
        *,
        narrator: EventRecorder | None = None,
        kinds: Sequence[Kind] = CUSTOM_KINDS,
    ) -> None:
        self._kinds = kinds
        """What is watched, and must be listed before anything is written."""
        self._state = state
        self._reader = reader
        self._clock = clock or Clock()
        self._recorder = narrator or EventRecorder(state, self._clock)
        self._latency = HotplugLatency()
        self._controllers = Controllers(
            ControllerContext(
                cache=state,
                kube=kube,
                publisher=mirror,
                clock=self._clock,
                mark=self._mark,
                refresh=self._refresh,
                confirm=self._confirm,
                recorder=self._recorder,
                latency=self._latency,
            )
        )
        self._queues = {
            Kind.POOL: WorkQueue(MAX_CONCURRENT_POOLS),
            Kind.GENERATOR: WorkQueue(MAX_CONCURRENT_GENERATORS),
            Kind.NODE: WorkQueue(MAX_CONCURRENT_NODES),
        }
        self._wake = asyncio.Event()
        self._yield_at = self._clock()
        self._watch_health = WatchHealth()
        self._was_stale = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._kinds_not_listed: set[Key] = set()
        """Keys not worked on since we lead; when there are none left, Redis may be compared."""
        self.all_reconciled = asyncio.Event()
        self._attempts: Counter[Key] = Counter()

    def on_object(self, kind: Kind, event: str | None, body: Any) -> None:
        """One watch event or listed object: decode, observe, mark. A version that is known is not read again."""
        found = identify(body)
        if event != "DELETED" and found and self._state.exists(kind).get(found[0]) == found[1]:
            return
        seen = decode(kind, body)
        if isinstance(seen, DecodeError):
            REJECTED.labels(kind.value).inc()
            log.warning("object cannot be read", kind=seen.kind, name=seen.name, why=seen.reason)
        elif event == "DELETED":
            self._mark(self._state.delete(kind, seen.meta.name, seen.meta.uid))
        elif event and isinstance(seen, Node):
            self._watched(seen)
        else:
            self._mark(self._state.upsert(seen, self._clock()))

    def _watched(self, node: Node) -> None:
        """A watch brought a node: where its report is a new one, what comes of it is measured (requirement F4)."""
        known, now = self._state.nodes.get(node.meta.name), self._clock()
        before = known.view.node.report if known else None
        dirty = self._state.upsert(node, now)
        self._mark(dirty)
        if self._state.gate_open and node.report and (before is None or before.time != node.report.time):
            pools = (key.name for key in dirty if key.kind is Kind.POOL and self._state.pools[key.name].urgent)
            self._latency.reported(node.meta.name, pools, node.report.time, now, self._clock.unix())

    def on_heartbeats(self, beats: Sequence[Heartbeat]) -> None:
        """Leases that were listed or changed."""
        HEARTBEATS.inc(len(beats))
        now = self._clock()
        for beat in beats:
            self._mark(self._state.record_heartbeat(beat, now))

    def on_probe_sent(self, renewed: str) -> None:
        """The canary Lease is about to be renewed with this renewTime."""
        self._watch_health.probe_sent(renewed, self._clock())

    def on_probe_received(self, renewed: str) -> None:
        """The Lease stream brought the canary."""
        self._watch_health.probe_received(renewed, self._clock())
        self._watched_again()

    def on_watch_lost(self) -> None:
        """The Lease stream broke: silence does not count until it is open again."""
        self._watch_health.on_disconnect()
        self._watched_again()

    def on_watch_restored(self) -> None:
        """The Lease stream is open."""
        self._watch_health.on_connect(self._clock())
        self._watched_again()

    @property
    def watch_is_stale(self) -> bool:
        """True while the Lease stream is not proven alive."""
        return self._watch_health.is_stale(self._clock())

    def _watched_again(self) -> bool:
        """Whether silence may count; when we hear again, every node has a fresh period (requirement C3)."""
        deaf = self.watch_is_stale
        if self._was_stale and not deaf:
            self._state.reset_liveness(self._clock())
            self._wake.set()
        self._was_stale = deaf
        WATCH_UP.labels("leases").set(not deaf)
        self._recorder.lease_watch_health(well=not deaf)
        return not deaf

    async def open_gate(self) -> None:
        """List everything once; only then may anything be written (D9). Waits for the API server for ever."""
        while not self._state.gate_open:
            try:
                await self.resync()
            except ApiUnavailable as error:
                log.warning("waiting for the API server", error=str(error))
                await asyncio.sleep(_WAIT_SECONDS)
            else:
                self._state.gate_open = True
                self._mark(self._state.restore_from_slices(self._clock()))
        log.info("everything is listed", **{kind.value: len(self._state.exists(kind)) for kind in self._kinds})

    async def resync(self) -> None:
        """Compare a completed LIST of each kind with what is known, by uid and version (requirement C7).

        Absence, and a version older than the one known, are confirmed by a GET.
        """
        for kind in self._kinds:
            known = dict(self._state.exists(kind))
            present: dict[str, Identity] = {}
            async for body in self._reader.each(kind):
                present |= [found] if (found := identify(body)) else []
                self.on_object(kind, None, body)
                await self._yield_to_loop()
            contradicts = self._state.versions.conflicts
            doubtful = [name for name, found in present.items() if contradicts(kind, name, found)]
            for name in [*(known.keys() - present.keys()), *doubtful]:
                await self._refresh(kind, name, known.get(name))

    async def _yield_to_loop(self) -> None:
        """Let others run when this has taken long."""
        if self._clock() > self._yield_at + YIELD_INTERVAL_SECONDS:
            await asyncio.sleep(0)
            self._yield_at = self._clock()

    async def stand_by(self) -> None:
        """Keep the state warm for ever without a write: silence takes effect, and what watches missed is found."""
        next_audit = self._clock() + RESYNC_SECONDS
        while True:
            next_audit = self._run_forever(next_audit)
            await self._sleep(next_audit)

    async def run(self) -> None:
        """Work for ever; to be called when the gate is open and we lead. Raises NotLeader and Fenced."""
        self._begin()
        next_audit = self._clock() + FIRST_RESYNC_SECONDS
        while self._failed is None:
            next_audit = self._run_forever(next_audit)
            now = self._clock()
            lanes = self._queues.values()
            for key, due in chain.from_iterable([lane.take(now) for lane in lanes]):
                self._start(self._work(key, due))
            await self._sleep(next_audit, *(lane.next_due() for lane in lanes))
        raise self._failed

    def _begin(self) -> None:
        """Everything is due once: what is stored may be what another leader made of it."""
        self._latency.clear()
        self._mark(self._state.on_leader_acquired(self._clock()))
        known = self._state.exists
        self._kinds_not_listed = {
            Key(kind, name) for kind in (Kind.NODE, Kind.POOL, Kind.GENERATOR) for name in known(kind)
        }
        self._kinds_not_listed |= {Key(Kind.POOL, pool) for pool in self._state.slices}
        if not self._kinds_not_listed:
            self.all_reconciled.set()
        self._mark(self._kinds_not_listed)

    def _run_forever(self, next_audit: float) -> float:
        """Let time take its effect on the state; when the next audit is due."""
        now = self._clock()
        self._wake.clear()
        if self._watched_again():
            self._mark(self._state.advance(now, self._watch_health.confirmed_until))
        NODES.set(len(self._state.nodes))
        POOLS.set(len(self._state.pools))
        if now < next_audit:
            return next_audit
        self._start(self._resync_safely())
        return now + RESYNC_SECONDS

    async def finish(self) -> None:
        """Let the writes under way end, but not all that a generator of thousands of pools still has to do."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FINISH_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sleep(self, *due: float | None) -> None:
        silence = None if self._was_stale else self._state.next_deadline()
        until = min(at for at in (self._clock() + _LONGEST_SLEEP, silence, *due) if at is not None)
        try:
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _mark(self, keys: Iterable[Key], at: float | None = None) -> None:
        now = self._clock() if at is None else at
        for key in keys:
            if self._queues[key.kind].add(key, self._controllers.earliest(key, now) if at is None else at):
                self._wake.set()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resync_safely(self) -> None:
        try:
            await self.resync()
        except ApiUnavailable as error:
            log.warning("audit failed", error=str(error))
        else:
            self._mark(self._state.find_orphaned_leases(self._clock()))

    async def _work(self, key: Key, due: float) -> None:
        """One key; whatever goes wrong is told, and the key is tried again later."""
        try:
            if await self._controllers.run(key):
                self._attempts.pop(key, None)
            APPLY.labels(key.kind.value).observe(self._clock() - due)
        except (NotLeaderError, FencedError) as error:
            self._failed = error
        except StaleError as error:
            await self._refresh(error.kind, error.name)
            self._retry(key, error)
        except RejectedError as error:
            self._recorder.write_rejected(key, str(error))
            self._retry(key, error)
        except RetryableError as error:
            self._retry(key, error)
        except Exception as error:  # one key's trouble must not end the others' work.
            log.exception("reconciliation failed", kind=key.kind.value, name=key.name)
            self._retry(key, error)
        finally:
            self._queues[key.kind].done(key)
            self._kinds_not_listed.discard(key)
            if not self._kinds_not_listed:
                self.all_reconciled.set()
            self._wake.set()

    def _retry(self, key: Key, error: Exception) -> None:
        FAILURES.labels(type(error).__name__).inc()
        at_once = isinstance(error, StaleError) and not self._attempts[key]
        if at_once:
            self._controllers.forget_pace(key)
        delay = 0.0 if at_once else _FIRST_BACKOFF * 2 ** self._attempts[key]
        self._attempts[key] = min(self._attempts[key] + 1, 10)
        if delay:
            log.warning("write failed", kind=key.kind.value, name=key.name, error=str(error), retry_seconds=delay)
        self._mark([key], self._clock() + min(delay, _LONGEST_BACKOFF))

    async def _refresh(self, kind: Kind, name: str, before: Identity | None = None) -> bool:
        """Read one object anew; a 404 is the evidence that it is gone (requirement C7), and makes it True.

        `before`: what was known for sure before this; an older version than that is what a restored etcd holds.
        """
        before = before or self._state.exists(kind).get(name)
        try:
            body = await self._reader.get(kind, name)
        except ApiUnavailable as error:
            log.warning("refresh failed", error=str(error))
            return False
        seen = None if body is None else decode(kind, body)
        if seen is None and before:
            self._mark(self._state.delete(kind, name, before.uid))
        elif seen is not None and not isinstance(seen, DecodeError):
            restored = before is None or seen.meta.version < before.version
            self._mark(self._state.upsert(seen, self._clock(), restored=restored))
        return seen is None

    async def _confirm(self, kind: Kind, name: str, uid: str) -> bool:
        """Whether the API server, asked now, holds this very object; what it holds instead is taken in.

        Raises Retryable where it does not answer.
        """
        try:
            found = identify(await self._reader.get(kind, name) or {})
        except ApiUnavailable as error:
            raise RetryableError(str(error)) from None
        if found and found[1].uid == uid:
            return True
        await self._refresh(kind, name)
        return False
