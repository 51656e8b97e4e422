"""Work loop of one fleet: gate, due keys, retries, periodic resync. Must not decide or know a wire shape."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

import structlog

from hotpool.clock import Clock
from hotpool.controllers.context import ControllerContext
from hotpool.controllers.generator import GeneratorController
from hotpool.controllers.ingest import Ingest
from hotpool.controllers.node import NodeController
from hotpool.controllers.pool import PoolController
from hotpool.controllers.resync import Resync
from hotpool.controllers.workqueue import WorkQueue
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import CUSTOM_KINDS, Key, Kind
from hotpool.errors import FencedError, NotLeaderError, RejectedError, RetryableError, StaleError
from hotpool.events.recorder import EventRecorder
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.reader import Reader
from hotpool.kube.writer import KubeWriter
from hotpool.observability.hotplug_latency import HotplugLatency
from hotpool.observability.metrics import APPLY, FAILURES, NODES, POOLS
from hotpool.projection.publisher import Publisher

log = structlog.get_logger(__name__)

MAX_CONCURRENT: Final = {Kind.POOL: 16, Kind.GENERATOR: 4, Kind.NODE: 8}
"""Keys in flight per kind. Pools must not wait for conditions of nodes, nor for generators, which make many pools."""
RESYNC_SECONDS: Final = 300.0
FIRST_RESYNC_SECONDS: Final = 10.0
"""Delay of a leader's first resync. It is short because changes between our LIST and the start of the watches count."""
_WAIT_SECONDS: Final = 1.0
_LONGEST_SLEEP: Final = 5.0
"""Longest time between two checks of the Lease watch."""
_FINISH_SECONDS: Final = 3.0
"""More than the time-out of one write (kube.writer)."""
_FIRST_BACKOFF: Final = 0.2
_LONGEST_BACKOFF: Final = 30.0


class Manager:
    """Cache, queues and controllers of one fleet, in one event loop."""

    def __init__(
        self,
        cache: ClusterCache,
        reader: Reader,
        kube: KubeWriter,
        publisher: Publisher | None,
        clock: Clock | None = None,
        *,
        recorder: EventRecorder | None = None,
        kinds: Sequence[Kind] = CUSTOM_KINDS,
    ) -> None:
        self._cache = cache
        self._clock = clock or Clock()
        self._recorder = recorder or EventRecorder(cache, self._clock)
        self._latency = HotplugLatency()
        self._wake = asyncio.Event()
        context = ControllerContext(
            cache=cache,
            kube=kube,
            publisher=publisher,
            clock=self._clock,
            mark=self._mark,
            recorder=self._recorder,
            latency=self._latency,
        )
        self.ingest = Ingest(context, self._wake)
        self.resync = Resync(context, reader, self.ingest, kinds)
        self._pools = PoolController(context, self.resync)
        self._controllers: dict[Kind, PoolController | GeneratorController | NodeController] = {
            Kind.POOL: self._pools,
            Kind.GENERATOR: GeneratorController(context, self.resync),
            Kind.NODE: NodeController(context, self.resync),
        }
        self._queues = {kind: WorkQueue(capacity) for kind, capacity in MAX_CONCURRENT.items()}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._unreconciled: set[Key] = set()
        """Keys not reconciled since we became leader; Redis is compared when it is empty."""
        self.all_reconciled = asyncio.Event()
        self._attempts: Counter[Key] = Counter()

    async def open_gate(self) -> None:
        """List every kind, then allow writes (D9). Wait for the API server without limit."""
        while not self._cache.gate_open:
            try:
                await self.resync.run()
            except ApiUnavailable as error:
                log.warning("waiting for the API server", error=str(error))
                await asyncio.sleep(_WAIT_SECONDS)
            else:
                self._cache.gate_open = True
                self._mark(self._cache.restore_from_slices(self._clock()))
        log.info("all objects listed", **{kind.value: len(self._cache.identities(kind)) for kind in self.resync.kinds})

    async def stand_by(self) -> None:
        """Keep the cache current without a write: advance silence and resync until cancelled."""
        next_resync = self._clock() + RESYNC_SECONDS
        while True:
            next_resync = self._tick(next_resync)
            await self._sleep(next_resync)

    async def run(self) -> None:
        """Reconcile due keys until leadership ends. Needs an open gate. Raises NotLeaderError and FencedError."""
        self._mark_all()
        next_resync = self._clock() + FIRST_RESYNC_SECONDS
        while self._failed is None:
            next_resync = self._tick(next_resync)
            now = self._clock()
            queues = self._queues.values()
            for key, due in chain.from_iterable([queue.take(now) for queue in queues]):
                self._start(self._reconcile(key, due))
            await self._sleep(next_resync, *(queue.next_due() for queue in queues))
        raise self._failed

    def _mark_all(self) -> None:
        """Mark every key, because another leader may have written the stored objects."""
        self._latency.clear()
        self._mark(self._cache.on_leader_acquired(self._clock()))
        self._unreconciled = {Key(kind, name) for kind in self._queues for name in self._cache.identities(kind)}
        self._unreconciled |= {Key(Kind.POOL, pool) for pool in self._cache.slices}
        if not self._unreconciled:
            self.all_reconciled.set()
        self._mark(self._unreconciled)

    def _tick(self, next_resync: float) -> float:
        """Advance silence and start a resync if it is due. Return the time of the next resync."""
        now = self._clock()
        self._wake.clear()
        self.ingest.advance(now)
        NODES.set(len(self._cache.nodes))
        POOLS.set(len(self._cache.pools))
        if now < next_resync:
            return next_resync
        self._start(self._resync())
        return now + RESYNC_SECONDS

    async def finish(self) -> None:
        """Wait for the writes in progress, then cancel the rest: a generator may have thousands of pools to write."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FINISH_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sleep(self, *due: float | None) -> None:
        times = (self._clock() + _LONGEST_SLEEP, self.ingest.next_deadline(), *due)
        until = min(at for at in times if at is not None)
        try:
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _mark(self, keys: Iterable[Key], at: float | None = None) -> None:
        now = self._clock() if at is None else at
        for key in keys:
            due = self._pools.earliest(key, now) if at is None and key.kind is Kind.POOL else now
            if self._queues[key.kind].add(key, due):
                self._wake.set()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resync(self) -> None:
        try:
            await self.resync.run()
        except ApiUnavailable as error:
            log.warning("resync failed", error=str(error))
        else:
            self._cache.versions.forget_deletions()
            self._mark(self._cache.find_orphaned_leases(self._clock()))

    async def _reconcile(self, key: Key, due: float) -> None:
        """Reconcile one key. Every error except the loss of leadership is reported and retried."""
        try:
            if await self._controllers[key.kind].reconcile(key):
                self._attempts.pop(key, None)
            APPLY.labels(key.kind.value).observe(self._clock() - due)
        except (NotLeaderError, FencedError) as error:
            self._failed = error
        except StaleError as error:
            await self._refresh(error)
            self._retry(key, error)
        except RejectedError as error:
            self._recorder.write_rejected(key, str(error))
            self._retry(key, error)
        except RetryableError as error:
            self._retry(key, error)
        except Exception as error:  # one key's failure must not end the others' work.
            log.exception("reconciliation failed", kind=key.kind.value, name=key.name)
            self._retry(key, error)
        finally:
            self._queues[key.kind].done(key)
            self._unreconciled.discard(key)
            if not self._unreconciled:
                self.all_reconciled.set()
            self._wake.set()

    async def _refresh(self, stale: StaleError) -> None:
        try:
            await self.resync.refresh(stale.kind, stale.name)
        except Exception:  # the key must be retried whatever the API server returned.
            log.exception("object not refreshed", kind=stale.kind.value, name=stale.name)

    def _retry(self, key: Key, error: Exception) -> None:
        FAILURES.labels(type(error).__name__).inc()
        at_once = isinstance(error, StaleError) and not self._attempts[key]
        if at_once:
            self._controllers[key.kind].reset_pacing(key)
        delay = 0.0 if at_once else _FIRST_BACKOFF * 2 ** self._attempts[key]
        self._attempts[key] = min(self._attempts[key] + 1, 10)
        if delay:
            log.warning("write failed", kind=key.kind.value, name=key.name, error=str(error), retry_seconds=delay)
        self._mark([key], self._clock() + min(delay, _LONGEST_BACKOFF))
