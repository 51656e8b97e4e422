"""A mirror with a real writer over a real server, and what it says: for tests of what goes wrong with Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.publisher import Publisher
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hotpool.projection.connection.async_connection import Client

HANG_SECONDS = 20.0
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)),))


def pool(*nodes: str) -> PoolDocument:
    return PoolDocument("zh-en", "u1", "pairs", "zh-en", frozenset(nodes), frozenset(), frozenset())


async def until(holds: Callable[[], Awaitable[bool] | bool], seconds: float = HANG_SECONDS) -> None:
    """Wait until something holds; fails when it hangs."""
    ends = time.monotonic() + seconds
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < ends, "it never came true"
        await asyncio.sleep(0.01)


class Ours:
    """A mirror with a real writer; what it says."""

    def __init__(self, client: Client) -> None:
        self.client = client
        writer = RedisWriter(client, namespace="speech", leader=lambda: True)
        self.told: list[tuple[bool, str]] = []
        self.term = 3
        self.mirror = Publisher(
            writer,
            term=lambda: self.term,
            raise_term=self._raise_term,
            cluster=self._cluster,
            tell=lambda well, why: self.told.append((well, why)),
        )

    async def _raise_term(self, term: int) -> None:
        self.term = term

    async def _cluster(self) -> str:
        return "cluster-1"


@asynccontextmanager
async def running(ours: Ours) -> AsyncIterator[Ours]:
    """Its first round is done: Redis holds a pool of two and a node."""
    await ours.mirror.publish_pool(pool("edge-1", "edge-2"))
    await ours.mirror.publish_node(NODE)
    task = asyncio.create_task(ours.mirror.run())
    try:
        await until(lambda: ours.mirror.healthy)
        yield ours
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await ours.client.aclose()
