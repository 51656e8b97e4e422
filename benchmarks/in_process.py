"""One operator in this process: everything that `hotpool operator` wires, but for the watch, the election and HTTP.

Watch lines are parsed here as the watch does it and fed as it feeds them; what kopf itself costs for each event is not
in the figures.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from benchmarks.memory_api import MemoryApi
from kubernetes.aio import client

from hotpool.controllers.manager import Manager
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Heartbeat, Kind
from hotpool.kube.lease_watch import LeaseWatch
from hotpool.kube.reader import Reader
from hotpool.kube.writer import KubeWriter
from hotpool.observability import logging_setup

NAMESPACE: Final = "fleet"
_AT_ONCE: Final = 200
"""Lines fed before others get their turn."""
QUIET_SECONDS: Final = 0.15
"""One look whether the operator asks the server for anything."""
_TURN_SECONDS: Final = 0.02
_DEADLINE_SECONDS: Final = 600.0


class _CountingObserver:
    """Between the Lease stream and the reconciler: counts what was told."""

    def __init__(self, reconciler: Manager) -> None:
        self.on_watch_restored = reconciler.ingest.on_watch_restored
        self.on_watch_lost = reconciler.ingest.on_watch_lost
        self.on_probe_received = reconciler.ingest.on_probe_received
        self.told = 0
        self._reconciler = reconciler

    def on_heartbeats(self, beats: Sequence[Heartbeat]) -> None:
        """Hand them on."""
        self._reconciler.ingest.on_heartbeats(beats)
        self.told += len(beats)


class InProcess:
    """The parts, wired as in `hotpool.app`."""

    def __init__(self, server: MemoryApi) -> None:
        logging_setup.configure("warning")
        self.server = server
        api = client.ApiClient()
        session: Any = server
        api.rest_client.pool_manager = session
        self.state = ClusterCache()
        sink = KubeWriter(api, NAMESPACE, leader=lambda: True, term=lambda: 1)
        self.reconciler = Manager(self.state, Reader(api, NAMESPACE), sink, None)
        self.observer = _CountingObserver(self.reconciler)
        self.leases = LeaseWatch(api, NAMESPACE, self.observer)

    def watch(self, kind: Kind, event: str | None, line: bytes) -> None:
        """One line of a watch."""
        self.reconciler.ingest.on_object(kind, event, json.loads(line))

    async def watch_all(self, kind: Kind) -> None:
        """The listing with which a watch begins; the time to read it from the file is the server's."""
        lines = self.server.lines(kind.value)
        for number, line in enumerate(self._timed(lines)):
            self.watch(kind, None, line)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _timed(self, lines: Any) -> Any:
        while True:
            began = time.thread_time()
            line = next(lines, None)
            self.server.cpu_seconds += time.thread_time() - began
            if line is None:
                return
            yield line

    def cpu(self) -> float:
        """CPU seconds of the operator so far: this thread's without the server's."""
        return time.thread_time() - self.server.cpu_seconds

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for something, with a deadline."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while not holds():  # noqa: ASYNC110 - nobody tells of a change of what is looked at.
                await asyncio.sleep(0.005)

    async def quiet(self, rounds: int = 3) -> None:
        """Wait until nothing was asked of the server in so many looks one after the other."""
        still = 0
        while still < rounds:
            before = self.server.requests
            await asyncio.sleep(QUIET_SECONDS)
            still = still + 1 if self.server.requests == before else 0

    async def longest_turn(self, work: Awaitable[None]) -> float:
        """The longest time, in seconds, for which the loop gave nobody a turn while `work` was under way."""
        longest = 0.0
        task = asyncio.ensure_future(work)
        while not task.done():
            began = time.perf_counter()
            await asyncio.sleep(_TURN_SECONDS)
            longest = max(longest, time.perf_counter() - began - _TURN_SECONDS)
        await task
        return longest

    async def hear(self, lines: Sequence[bytes]) -> None:
        """Leases are renewed: send these lines of the watch, and wait until the state was told of all of them."""
        expected = self.observer.told + len(lines)
        for first in range(0, len(lines), 2000):
            self.server.lease_lines.put_nowait(b"\n".join([*lines[first : first + 2000], b""]))
        await self.until(lambda: self.observer.told >= expected)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """The Lease stream runs in this block; it has listed when the block begins."""
        self.leases.listed.clear()
        task = asyncio.create_task(self.leases.run())
        await self.leases.listed.wait()
        try:
            yield
        finally:
            task.cancel()

    @asynccontextmanager
    async def listed(self) -> AsyncIterator[None]:
        """In this block the gate is open: after the listing of each watch, the Leases, and the operator's own lists."""
        for kind in (Kind.NODE, Kind.GENERATOR, Kind.POOL, Kind.SLICE):
            await self.watch_all(kind)
        async with self.listening():
            await self.reconciler.open_gate()
            yield

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """The reconciler works in this block, and hears of what is written."""
        self.server.watcher = self.watch
        task = asyncio.create_task(self.reconciler.run())
        try:
            yield
        finally:
            self.server.watcher = None
            if task.done():
                task.result()
            task.cancel()
            await self.reconciler.finish()
