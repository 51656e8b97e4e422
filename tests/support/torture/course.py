"""A run of the torture test: successive leaders, injected faults, readers at full speed, and dispatchers."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.support.torture.leaders import MEMBERS_PER_CALL, POOL_SIZES, History, Leader, Readers, violations
from tests.support.torture.limits import Dispatchers, dispatch_violations

from hotpool.lookup import Lookup
from hotpool.observability.metrics import REGISTRY
from hotpool.projection import writer as writing
from hotpool.projection.connection.async_connection import connect
from localfleet.redis_groups import is_master
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

STEPS = 12
CONCURRENT_CHANGES = 3
HANG_SECONDS = 40.0
_FAILOVER_SECONDS = 6.0
FAULTS = ("flush", "flush functions too", "restart", "pause", "cut", "depose", "kill")


def pool_write_count(how: str) -> float:
    return REGISTRY.get_sample_value("hotpool_redis_pool_writes_total", {"how": how}) or 0.0


class Torture:
    """Successive leaders that change everything continuously. Deposed leaders continue to write."""

    dispatchers: Dispatchers

    def __init__(self, seed: int, open_client: Callable[[], Any], patch: pytest.MonkeyPatch) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - fixed seed, no secret
        self.history = History()
        self.leaders: list[Leader] = []
        self.fault_counts: Counter[str] = Counter()
        self._open = open_client
        self._patch = patch
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def leader(self) -> Leader:
        """The current leader."""
        return self.leaders[-1]

    async def depose(self, *, keep_writing: bool = True) -> None:
        """Start a new leader. At most two former leaders keep writing. Without `keep_writing` the last stops."""
        former = self.leaders[-1:]
        for leader in former:
            leader.leadership.elected = False
        self.leaders.append(Leader(self._open(), self.history, len(self.leaders) + 1, self._patch))
        await self.leader.writer.claim(self.leader.leadership.term, "cluster-1")
        for leader in former:
            leader.deposed = True
            if keep_writing:
                self._tasks.append(asyncio.create_task(leader.keep_writing(random.Random(leader.number))))  # noqa: S311
            else:
                await leader.stop_work()
        for leader in self.leaders[:-3]:
            leader.stopped = True
        await self.leader.start(self.rng)

    async def work(self, seconds: float) -> None:
        """Change pools and nodes continuously."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _ in range(CONCURRENT_CHANGES):
                self.leader.change(self.rng)
            await asyncio.sleep(0.002)

    async def work_until_healthy(self) -> None:
        """Continue changes until the worker is healthy, and 0.3 s longer."""
        deadline = time.monotonic() + HANG_SECONDS
        while not self.leader.fleet.healthy:
            assert time.monotonic() < deadline, f"Redis never became healthy: {self.leader.fleet.error}"
            await self.work(0.05)
        await self.work(0.3)

    async def inject(self, server: RedisServer, kind: str) -> None:
        """Inject a fault into the server, or replace the leader or a dispatcher."""
        self.fault_counts[kind] += 1
        if kind == "depose":
            await self.depose()
        elif kind == "kill":
            await asyncio.to_thread(self.dispatchers.replace_one)
        elif kind == "pause":
            server.pause()
            await self.work(0.6)
            server.resume()
        elif kind == "cut":
            await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal")
        elif kind == "restart":
            with self.history.losing():
                server.kill()
                await self.work(0.2)
                await asyncio.to_thread(server.start)
        else:
            with self.history.losing():
                if kind != "flush":
                    await asyncio.to_thread(server.ask, "FUNCTION", "FLUSH")
                await asyncio.to_thread(server.ask, "FLUSHALL")
        await self.work(0.1)
        await self.work_until_healthy()

    async def close(self) -> None:
        """Stop all leaders."""
        for leader in self.leaders:
            leader.stopped = True
        await asyncio.gather(*self._tasks)
        for leader in self.leaders:
            await leader.stop_work()
            await leader.client.aclose()


@asynccontextmanager
async def torture(seed: int, url: str, patch: pytest.MonkeyPatch, *, cluster: bool = False) -> AsyncIterator[Torture]:
    """Start a first leader, readers and dispatchers. At the end compare every result with the written history."""
    patch.setattr(writing, "MEMBERS_PER_CALL", MEMBERS_PER_CALL)
    before = {how: pool_write_count(how) for how in ("change", "whole")}
    run = Torture(seed, lambda: connect(url, cluster=cluster, timeout=0.5), patch)
    await run.depose()
    readers = Readers(url, cluster=cluster)
    dispatchers = run.dispatchers = Dispatchers(url, cluster=cluster)
    try:
        seen_enough = asyncio.create_task(asyncio.to_thread(readers.wait_until_enough))
        yield run
        while not (seen_enough.done() and dispatchers.seen_enough()):
            await run.work(0.05)
        await seen_enough
        await run.leader.wait_healthy()
        await check_final_members(run.leader, url, cluster=cluster)
        reader_results = await asyncio.to_thread(readers.stop)
        await dispatchers.finish(run.leader.fleet, run.leader.client)
        dispatched = dispatchers.records()
    finally:
        readers.kill()
        dispatchers.kill()
        await run.close()
    wrong = [violation for result in reader_results for violation in violations(run.history, result)]
    wrong += dispatch_violations(run.history.losses, dispatched)
    assert not wrong, f"{len(wrong)} violations, first: {wrong[:5]}"
    accepted = [leader.accepted for leader in run.leaders[:-1] if leader.accepted]
    assert not accepted, f"writes of former leaders were accepted: {accepted}"
    assert all(pool_write_count(how) > before[how] for how in before)


async def check_final_members(leader: Leader, url: str, *, cluster: bool) -> None:
    """Check that a reader gets the last documents of the last leader, at once or after the next drift check."""
    deadline = time.monotonic() + HANG_SECONDS
    async with Lookup.from_url(url, namespace="speech", cluster=cluster) as lookup:
        for name in POOL_SIZES:
            wanted = leader.documents[name]
            while True:
                found = await lookup.members(name)
                if tuple(map(frozenset, (found.ready, found.suspect, found.draining))) == wanted.members:
                    break
                assert time.monotonic() < deadline, f"{name} has not its last members: {found}"
                await asyncio.sleep(0.05)


async def run_torture(seed: int, patch: pytest.MonkeyPatch, *, persist: bool, steps: int = STEPS) -> Torture:
    """Run on one server. Inject each fault in turn, in an order that is random in each cycle."""
    with RedisServer(persist=persist) as server:
        async with torture(seed, server.url, patch) as run:
            await run.work(0.5)
            faults: list[str] = []
            for _ in range(steps):
                faults = faults or run.rng.sample(FAULTS, len(FAULTS))
                await run.inject(server, faults.pop())
    return run


async def wait_for_info(run: Torture, server: RedisServer, text: bytes) -> None:
    """Continue changes until INFO replication of the server contains `text`."""
    deadline = time.monotonic() + HANG_SECONDS
    while text not in await asyncio.to_thread(server.ask, "INFO", "replication"):
        assert time.monotonic() < deadline, text
        await run.work(0.05)


async def fail_over_to(run: Torture, replica: RedisServer) -> None:
    """Continue changes until a cluster has made a replica the master. It gives up a request after 5 s."""
    deadline, requested = time.monotonic() + HANG_SECONDS, 0.0
    while not await asyncio.to_thread(is_master, replica):
        assert time.monotonic() < deadline
        if time.monotonic() > requested + _FAILOVER_SECONDS:
            await asyncio.to_thread(replica.ask, "CLUSTER", "FAILOVER")
            requested = time.monotonic()
        await run.work(0.05)
