"""A course of torture: leaders one after the other, a server that is hurt, and readers at full speed (torture.py)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.cluster.torture import MEMBERS_PER_CALL, SIZES, History, Leader, Readers, violations

from hotpool.lookup import Lookup
from hotpool.metrics import REGISTRY
from hotpool.projection import writer as writing
from hotpool.projection.client import connect
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

STEPS = 12
AT_ONCE = 3
HANG_SECONDS = 40.0
HURTS = ("flush", "flush functions too", "restart", "pause", "cut", "depose")


def written(how: str) -> float:
    return REGISTRY.get_sample_value("hotpool_redis_pool_writes_total", {"how": how}) or 0.0


class Torture:
    """Leaders that change everything all the time, one after the other; the deposed ones go on."""

    def __init__(self, seed: int, open_client: Callable[[], Any], patch: pytest.MonkeyPatch) -> None:
        self.course = random.Random(seed)  # noqa: S311 - a fixed course, no secret
        self.history = History()
        self.leaders: list[Leader] = []
        self.done: Counter[str] = Counter()
        self._open = open_client
        self._patch = patch
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def leader(self) -> Leader:
        """Who leads now."""
        return self.leaders[-1]

    async def depose(self, *, goes_on: bool = True) -> None:
        """Another one leads from now on; of the former ones at most two go on, or the last one stops."""
        former = self.leaders[-1:]
        for leader in former:
            leader.elected = False
        self.leaders.append(Leader(self._open(), self.history, len(self.leaders) + 1, self._patch))
        await self.leader.writer.claim(self.leader.term, "cluster-1")
        for leader in former:
            leader.deposed = True
            if goes_on:
                self._tasks.append(asyncio.create_task(leader.go_on(random.Random(leader.number))))  # noqa: S311
            else:
                await leader.end()
        for leader in self.leaders[:-3]:
            leader.stopped = True
        await self.leader.begin(self.course)

    async def work(self, seconds: float) -> None:
        """Change something all the time, with writes that overtake each other."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            await asyncio.gather(*(self.leader.change(self.course) for _ in range(AT_ONCE)))
            await asyncio.sleep(0.002)

    async def recovered(self) -> None:
        """Change on until Redis holds all again, and a little longer."""
        ends = time.monotonic() + HANG_SECONDS
        while not self.leader.mirror.up:
            assert time.monotonic() < ends, f"Redis never caught up: {self.leader.mirror.why}"
            await self.work(0.05)
        await self.work(0.3)

    async def hurt(self, server: RedisServer, kind: str) -> None:
        """Do this to the server, or to the leader."""
        self.done[kind] += 1
        if kind == "depose":
            await self.depose()
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
        await self.recovered()

    async def close(self) -> None:
        """Stop all leaders."""
        for leader in self.leaders:
            leader.stopped = True
        await asyncio.gather(*self._tasks)
        for leader in self.leaders:
            await leader.end()
            await leader.client.aclose()


@asynccontextmanager
async def torture(seed: int, url: str, patch: pytest.MonkeyPatch, *, cluster: bool = False) -> AsyncIterator[Torture]:
    """A first leader and readers; at the end every answer is held against what was written."""
    patch.setattr(writing, "MEMBERS_PER_CALL", MEMBERS_PER_CALL)
    before = {how: written(how) for how in ("change", "whole")}
    made = Torture(seed, lambda: connect(url, cluster=cluster, timeout=0.5), patch)
    await made.depose()
    readers = Readers(url, cluster=cluster)
    try:
        seen_enough = asyncio.create_task(asyncio.to_thread(readers.watch))
        yield made
        while not seen_enough.done():
            await made.work(0.05)
        await seen_enough
        await made.leader.settled()
        await now_holds(made.leader, url, cluster=cluster)
        told = await asyncio.to_thread(readers.stop)
    finally:
        readers.kill()
        await made.close()
    wrong = [violation for seen in told for violation in violations(made.history, seen)]
    assert not wrong, f"{len(wrong)} violations, first: {wrong[:5]}"
    accepted = [leader.accepted for leader in made.leaders[:-1] if leader.accepted]
    assert not accepted, f"writes of former leaders were accepted: {accepted}"
    assert all(written(how) > before[how] for how in before)


async def now_holds(leader: Leader, url: str, *, cluster: bool) -> None:
    """What the last leader gave last is what a reader gets, at once or after the round that what failed has woken."""
    ends = time.monotonic() + HANG_SECONDS
    async with Lookup.from_url(url, namespace="speech", cluster=cluster) as lookup:
        for name in SIZES:
            wanted = leader.mirror.wanted(name)
            assert wanted is not None
            while True:
                found = await lookup.members(name)
                if tuple(map(frozenset, (found.ready, found.suspect, found.draining))) == wanted.members:
                    break
                assert time.monotonic() < ends, f"{name} is not as it was given last: {found}"
                await asyncio.sleep(0.05)


async def course_of(seed: int, patch: pytest.MonkeyPatch, *, persist: bool, steps: int = STEPS) -> Torture:
    """A course on one server: each hurt in turn, in an order drawn anew each time."""
    with RedisServer(persist=persist) as server:
        async with torture(seed, server.url, patch) as made:
            await made.work(0.5)
            hurts: list[str] = []
            for _ in range(steps):
                hurts = hurts or made.course.sample(HURTS, len(HURTS))
                await made.hurt(server, hurts.pop())
    return made


async def becomes(made: Torture, server: RedisServer, said: bytes) -> None:
    """Change on until the server says so."""
    ends = time.monotonic() + HANG_SECONDS
    while said not in await asyncio.to_thread(server.ask, "INFO", "replication"):
        assert time.monotonic() < ends, said
        await made.work(0.05)
