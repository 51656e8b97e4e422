"""Work of one fleet: gate, watched changes, silence, resync, and the workers of a leader. Must not decide."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final

import structlog

from hotpool.clock import Clock
from hotpool.controllers.ingest import Ingest
from hotpool.controllers.result import Target
from hotpool.controllers.resync import Resync
from hotpool.controllers.worker import STARTING, Worker
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.endpoints.pod_observations import PodAddresses
from hotpool.core.model import CUSTOM_KINDS, Heartbeat, Key, Kind, PodReference
from hotpool.events.recorder import EventRecorder
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.reader import Reader
from hotpool.observability import hotplug_latency
from hotpool.observability.hotplug_latency import Seen
from hotpool.observability.metrics import NODES, POOLS, USE_OF_POOLS

log = structlog.get_logger(__name__)

RESYNC_SECONDS: Final = 300.0
FIRST_RESYNC_SECONDS: Final = 10.0
"""Delay of a leader's first resync. It is short because changes between our LIST and the start of the watches count."""
_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_FOR_PODS: Final = 10.0
_POLL_SECONDS: Final = 0.02
_LONGEST_SLEEP: Final = 5.0
"""Longest time between two checks of the Lease watch."""


async def first_of(*work: Coroutine[Any, Any, Any]) -> None:
    """Run these until the first one ends, and cancel the others. Raises its error."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class Manager:
    """Cache and workers of one fleet, in one event loop."""

    def __init__(
        self,
        cache: ClusterCache,
        reader: Reader,
        clock: Clock,
        recorder: EventRecorder,
        kinds: Sequence[Kind] = CUSTOM_KINDS,
        *,
        wake_pod_reader: Callable[[], None] = lambda: None,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._recorder = recorder
        self._wake_pod_reader = wake_pod_reader
        self._wake = asyncio.Event()
        self._sleeps_until = 0.0
        """Time at which silence is advanced next (monotonic)."""
        self.ingest = Ingest(cache, clock, recorder)
        self.resync = Resync(cache, reader, self.ingest, clock, kinds)
        self._workers: Sequence[Worker] = ()
        """Workers of the present leadership; none of a standby."""

    async def open_gate(self) -> None:
        """List every kind, then allow writes (D9). Wait for the API server without limit."""
        while not self._cache.gate_open:
            if await self.compare():
                await self._pods_read()
                while not self._cache.is_complete:
                    await self._clock.pace()
                    self._cache.match_step()
                self._cache.gate_open = True
                for _ in self._cache.restore_from_slices(self._clock()):
                    await self._clock.pace()
            else:
                await asyncio.sleep(_WAIT_SECONDS)
        log.info("all objects listed", **{kind.value: len(self._cache.identities(kind)) for kind in self.resync.kinds})

    async def _pods_read(self) -> None:
        """Wait for the first read of each claimed pod, but not long: a node must not lose its endpoint to a restart."""
        deadline = self._clock() + _LONGEST_WAIT_FOR_PODS
        while self._cache.endpoints.pods.pending and self._clock() < deadline:  # noqa: ASYNC110 - seldom, and short.
            await asyncio.sleep(_POLL_SECONDS)

    async def stand_by(self) -> None:
        """Keep the cache current without a write until cancelled: advance silence, and resync."""
        await self._maintain(RESYNC_SECONDS)

    async def lead(self, targets: Sequence[Target]) -> None:
        """Write to the targets until leadership ends. Needs an open gate. Raises NotLeaderError and FencedError.

        Every key is reconciled once, because another leader may have written the stored objects.
        """
        for _ in self._cache.on_leader_acquired(self._clock()):
            await self._clock.pace()
        self._workers = [Worker(target, self._clock) for target in targets]
        kinds = (Kind.NODE, Kind.POOL, Kind.GENERATOR)
        keys = {Key(kind, name) for kind in kinds for name in self._cache.identities(kind)}
        keys |= {Key(Kind.POOL, pool) for pool in self._cache.slices}
        try:
            for worker in self._workers:
                await self._clock.pace()
                worker.restore(keys)
            await first_of(self._maintain(FIRST_RESYNC_SECONDS), *map(self._serve, self._workers))
        finally:
            self._workers = ()
            for metric in USE_OF_POOLS:
                metric.clear()

    async def _serve(self, worker: Worker) -> None:
        async with aclosing(worker.run()) as results:
            async for result in results:
                self.mark(result.dirty)
                if worker.error != STARTING:
                    self._recorder.target_health(worker.target.name, worker.error)

    def target_errors(self) -> dict[str, str]:
        """Return target → reason why it does not hold the desired state; empty if it does. Nothing of a standby."""
        return {worker.target.name: worker.error for worker in self._workers}

    def on_object(self, kind: Kind, event: str | None, body: Any) -> None:
        """Store a watched object and mark the keys that it affects. `event` None: it was listed."""
        name = str(((body or {}).get("metadata") or {}).get("name"))
        before = self._report_time(name) if kind is Kind.NODE and event else None
        dirty = self.ingest.on_object(kind, event, body)
        time = self._report_time(name) if kind is Kind.NODE and event else None
        seen = None
        if time and time != before and self._cache.gate_open:
            seen = hotplug_latency.seen(time, self._clock(), self._clock.unix())
        self.mark(dirty, seen)

    def _report_time(self, name: str) -> str | None:
        tracker = self._cache.nodes.get(name)
        return tracker.view.node.report.time if tracker and tracker.view.node.report else None

    def on_pod(self, pod: PodReference, found: PodAddresses | None) -> None:
        """Store what was read of a pod that an agent names as a service; None: the read failed."""
        self.mark(self.ingest.on_pod(pod, found))

    async def apply_policy(self, policy: AddressPolicy) -> None:
        """Judge the addresses of all nodes by another policy."""
        for dirty in self._cache.apply_policy(policy):
            self.mark(dirty)
            await self._clock.pace()

    def on_heartbeats(self, heartbeats: Sequence[Heartbeat]) -> None:
        """Record the heartbeats of listed or changed Leases."""
        self.mark(self.ingest.on_heartbeats(heartbeats))

    def on_probe_received(self, renewed: str) -> None:
        """Record the renewTime of the probe Lease that the watch delivered."""
        self.ingest.on_probe_received(renewed)
        self._wake.set()

    def on_watch_lost(self) -> None:
        """Stop counting silence until the Lease watch is open again."""
        self.ingest.on_watch_lost()

    def on_watch_restored(self, *, listed: bool = True) -> None:
        """Record that the Lease watch is open, after a complete listing or where it broke."""
        self.ingest.on_watch_restored(listed=listed)
        self._wake.set()

    def mark(self, keys: Iterable[Key], seen: Seen | None = None) -> None:
        """Make keys due now at every target. `seen`: the report that changed them."""
        self._wake_pod_reader()
        self._recorder.service_incidents(self._cache.incidents.take())
        deadline = self.ingest.next_deadline()
        if deadline is not None and deadline < self._sleeps_until:
            self._wake.set()
        if not self._workers or not keys:
            return
        now = self._clock()
        urgent = [key for key in keys if seen and key.kind is Kind.POOL and self._is_urgent(key.name)]
        for worker in self._workers:
            worker.add(urgent, now, seen)
            worker.add(keys, now)

    def _is_urgent(self, pool: str) -> bool:
        membership = self._cache.pools.get(pool)
        return membership is not None and membership.urgent

    async def _maintain(self, resync_seconds: float) -> None:
        """Advance silence and compare the cache with the API server, until cancelled."""
        next_resync = self._clock() + resync_seconds
        resync: asyncio.Task[bool] | None = None
        try:
            while True:
                await self._clock.pace()
                now = self._clock()
                self._wake.clear()
                self.mark(self.ingest.advance(now))
                NODES.set(len(self._cache.nodes))
                POOLS.set(len(self._cache.pools))
                if now >= next_resync:
                    resync, next_resync = asyncio.create_task(self.compare()), now + RESYNC_SECONDS
                times = (now + _LONGEST_SLEEP, next_resync, self.ingest.next_deadline())
                await self._sleep(min(at for at in times if at is not None))
        finally:
            if resync:
                resync.cancel()
                await asyncio.gather(resync, return_exceptions=True)

    async def _sleep(self, until: float) -> None:
        self._sleeps_until = until
        await self._clock.wait(self._wake, until)

    async def compare(self) -> bool:
        """Compare the cache with complete LISTs (requirement C7). Return False if the API server is unavailable."""
        try:
            async with aclosing(self.resync.run()) as found:
                async for dirty in found:
                    self.mark(dirty)
        except ApiUnavailable as error:
            log.warning("objects not listed; trying again", error=str(error))
            return False
        if self._cache.gate_open:
            self._cache.versions.forget_deletions()
            self.mark(self._cache.find_orphaned_leases(self._clock()))
        return True
