"""An operator in this process: all parts of `hotpool operator` except the kopf watch, the election and HTTP.

Watch lines are parsed here as the watch parses them. The figures do not contain kopf's own cost for each event.
"""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from benchmarks.memory_api import MemoryApi
from kubernetes.aio import client
from tests.support.leadership import FixedLeadership

from hotpool.clock import Clock
from hotpool.controllers.context import ControllerContext
from hotpool.controllers.kubernetes_target import KubernetesTarget
from hotpool.controllers.manager import Manager
from hotpool.controllers.result import Result
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Heartbeat, Key, Kind
from hotpool.events.recorder import EventRecorder
from hotpool.kube.lease_watch import LeaseWatch
from hotpool.kube.reader import Reader
from hotpool.kube.writer import KubeWriter
from hotpool.observability import logging_setup

NAMESPACE: Final = "fleet"
_LINES_PER_STEP: Final = 200
"""Lines processed before the event loop runs other tasks."""
QUIET_SECONDS: Final = 0.15
"""Seconds of one check for new requests of the operator."""
_LEASES_PER_CHUNK: Final = 400
"""Renewals that one read of the socket returns: 256 KiB."""
_DEADLINE_SECONDS: Final = 600.0


class _CountingObserver:
    """Observer between the Lease watch and the manager that counts heartbeats."""

    def __init__(self, manager: Manager) -> None:
        self.on_watch_restored = manager.on_watch_restored
        self.on_watch_lost = manager.on_watch_lost
        self.on_probe_received = manager.on_probe_received
        self.count = 0
        self._manager = manager

    def on_heartbeats(self, beats: Sequence[Heartbeat]) -> None:
        """Pass them to the manager."""
        self._manager.on_heartbeats(beats)
        self.count += len(beats)


class _CountingTarget(KubernetesTarget):
    """Target that notes each key that was reconciled."""

    def __init__(self, context: ControllerContext, reader: Reader) -> None:
        super().__init__(context, reader)
        self.reconciled: set[Key] = set()

    async def reconcile(self, key: Key) -> Result:
        """Reconcile one key."""
        result = await super().reconcile(key)
        self.reconciled.add(key)
        return result


class InProcess:
    """The parts, wired as in `hotpool.app`."""

    def __init__(self, server: MemoryApi) -> None:
        logging_setup.configure("warning")
        self.server = server
        api = client.ApiClient()
        session: Any = server
        api.rest_client.pool_manager = session
        self.cache = ClusterCache()
        self.shift = 0.0
        """Seconds by which the operator's clock is ahead."""
        clock, reader = Clock(lambda: time.monotonic() + self.shift), Reader(api, NAMESPACE)
        recorder = EventRecorder(self.cache, clock)
        self.manager = Manager(self.cache, reader, clock, recorder)
        self._target = _CountingTarget(
            ControllerContext(
                cache=self.cache,
                kube=KubeWriter(api, NAMESPACE, FixedLeadership()),
                resync=self.manager.resync,
                clock=clock,
                recorder=recorder,
            ),
            reader,
        )
        self.observer = _CountingObserver(self.manager)
        self.leases = LeaseWatch(api, NAMESPACE, self.observer, clock)

    def watch(self, kind: Kind, event: str | None, line: bytes) -> None:
        """Process one line of a watch."""
        self.manager.on_object(kind, event, json.loads(line))

    async def watch_all(self, kind: Kind) -> None:
        """Process the first listing of a watch; the time to read it from the file counts for the server."""
        lines = self.server.lines(kind.value)
        for number, line in enumerate(self._timed(lines)):
            self.watch(kind, None, line)
            if number % _LINES_PER_STEP == 0:
                await asyncio.sleep(0)

    async def watch_everything(self) -> None:
        """Process the first listing of each watch."""
        for kind in (Kind.NODE, Kind.GENERATOR, Kind.POOL, Kind.SLICE):
            await self.watch_all(kind)

    def _timed(self, lines: Any) -> Any:
        while True:
            began = time.thread_time()
            line = next(lines, None)
            self.server.cpu_seconds += time.thread_time() - began
            if line is None:
                return
            yield line

    def cpu(self) -> float:
        """Return the operator's CPU seconds so far: those of this thread without the server's."""
        return time.thread_time() - self.server.cpu_seconds

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for a condition. Raises TimeoutError."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while not holds():  # noqa: ASYNC110 - the condition has no event.
                await asyncio.sleep(0.005)

    async def all_reconciled(self) -> None:
        """Wait until as many keys were reconciled as there are objects."""
        kinds = self._target.concurrency
        await self.until(lambda: len(self._target.reconciled) >= sum(len(self.cache.identities(k)) for k in kinds))

    async def quiet(self, rounds: int = 3) -> None:
        """Wait until `rounds` consecutive checks find no new request to the server."""
        still = 0
        while still < rounds:
            before = self.server.requests
            await asyncio.sleep(QUIET_SECONDS)
            still = still + 1 if self.server.requests == before else 0

    async def renew_leases(self, lines: Sequence[bytes]) -> None:
        """Send renewals as lines of the Lease watch, and wait until the cache has received all of them."""
        expected = self.observer.count + len(lines)
        for first in range(0, len(lines), _LEASES_PER_CHUNK):
            self.server.lease_lines.put_nowait(b"\n".join([*lines[first : first + _LEASES_PER_CHUNK], b""]))
        await self.until(lambda: self.observer.count >= expected)

    @asynccontextmanager
    async def watching_leases(self) -> AsyncIterator[None]:
        """Run the Lease watch in this block; it has listed when the block begins."""
        self.leases.listed.clear()
        task = asyncio.create_task(self.leases.run())
        await self.leases.listed.wait()
        try:
            yield
        finally:
            task.cancel()

    @asynccontextmanager
    async def listed(self) -> AsyncIterator[None]:
        """Open the gate for this block, after the listing of each watch, the Leases, and the operator's own lists."""
        await self.watch_everything()
        async with self.watching_leases():
            await self.open_gate()
            yield

    async def open_gate(self) -> None:
        """Exclude what is listed from garbage collections, and open the gate, as the operator does."""
        gc.freeze()
        await self.manager.open_gate()

    async def restore_lease_watch(self) -> None:
        """Report that the Lease watch is listed again: each node gets a fresh period."""
        self.manager.on_watch_restored()
        await self.quiet()

    async def silence_recorded(self) -> None:
        """Wait until the silence of every node is recorded, while the Lease watch stays proven."""
        while self.cache.ageing:
            self.jump(0.001)
            await asyncio.sleep(1.0)

    def jump(self, seconds: float) -> None:
        """Advance the operator's clock; the Lease watch is proven complete until then."""
        self.shift += seconds
        renewed = str(self.shift)
        self.manager.ingest.on_probe_sent(renewed)
        self.manager.on_probe_received(renewed)

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """Run the manager in this block, with a watch event for each write."""
        self.server.watcher = self.watch
        task = asyncio.create_task(self.manager.lead([self._target]))
        try:
            yield
        finally:
            self.server.watcher = None
            if task.done():
                task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
