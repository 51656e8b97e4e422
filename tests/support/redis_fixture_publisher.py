"""A publisher with a real writer and server, and its reported state, for tests of failures of Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from redis.exceptions import TimeoutError as RedisTimeoutError

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


async def until(condition: Callable[[], Awaitable[bool] | bool], seconds: float = HANG_SECONDS) -> None:
    """Wait until the condition is true. Raise AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        with suppress(RedisTimeoutError):  # a busy machine answers late
            if result if isinstance(result, bool) else await result:
                return
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        await asyncio.sleep(0.01)


class PublisherHarness:
    """A publisher with a real writer, and the state changes that it reports."""

    def __init__(self, client: Client) -> None:
        self.client = client
        writer = RedisWriter(client, namespace="speech", leader=lambda: True)
        self.state_changes: list[tuple[bool, str]] = []
        self.term = 3
        self.publisher = Publisher(
            writer,
            term=lambda: self.term,
            raise_term=self._raise_term,
            cluster=self._cluster,
            on_state_change=lambda healthy, error: self.state_changes.append((healthy, error)),
        )

    async def _raise_term(self, term: int) -> None:
        self.term = term

    async def _cluster(self) -> str:
        return "cluster-1"


@asynccontextmanager
async def running(harness: PublisherHarness) -> AsyncIterator[PublisherHarness]:
    """Run the publisher. Redis holds a pool of two and a node, and the first round has ended."""
    await harness.publisher.publish_pool(pool("edge-1", "edge-2"))
    await harness.publisher.publish_node(NODE)
    task = asyncio.create_task(harness.publisher.run())
    try:
        await until(lambda: harness.publisher.healthy)
        yield harness
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await harness.client.aclose()
