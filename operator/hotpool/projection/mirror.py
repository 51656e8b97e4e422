"""Keeps Redis equal to the last images that the reconciler gave (behaviour E1, E5), whatever happens to Redis.

Called by the reconciler with whole images; its round, each 5 s, compares and re-sends what differs. While Redis is
away images are only remembered. It must not decide what an image holds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from hotpool.metrics import REDIS_UP, WRITES
from hotpool.projection.images import NodeImage, PoolImage
from hotpool.projection.writer import Writer
from hotpool.sinks.errors import Fenced, NotLeader, Rejected, Retryable, SinkError

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
_AT_ONCE: Final = 16


class Mirror:
    """The wanted images, and whether Redis is believed to hold them.

    `term` tells our term; `raise_term` stores a larger one where Redis knows a larger one than ours.
    """

    def __init__(
        self, writer: Writer, *, term: Callable[[], int], raise_term: Callable[[int], Awaitable[None]]
    ) -> None:
        self._writer = writer
        self._term = term
        self._raise_term = raise_term
        self._pools: dict[str, PoolImage] = {}
        self._nodes: dict[str, NodeImage] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self.up = False

    async def pool(self, image: PoolImage) -> None:
        """This is what Redis shall hold of a pool from now on."""
        if self._pools.get(image.name) != image:
            self._pools[image.name] = image
            await self._send("replace_pool", lambda: self._writer.replace_pool(image))

    async def node(self, image: NodeImage) -> None:
        """This is what Redis shall hold of a node from now on."""
        if self._nodes.get(image.name) != image:
            self._nodes[image.name] = image
            await self._send("replace_node", lambda: self._writer.replace_node(image))

    async def no_pool(self, name: str) -> None:
        """Redis shall not know this pool any more."""
        if self._pools.pop(name, None):
            await self._send("drop_pool", lambda: self._writer.drop_pool(name))

    async def no_node(self, name: str) -> None:
        """Redis shall not know this node any more."""
        if self._nodes.pop(name, None):
            await self._send("drop_node", lambda: self._writer.drop_node(name))

    async def run(self) -> None:
        """Rounds for ever; to be started when every pool and node was given once. Raises Fenced and NotLeader."""
        while True:
            await self._round()
            self._wake.clear()
            try:
                async with asyncio.timeout(ROUND_SECONDS if self.up else RETRY_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(RETRY_SECONDS / 10)
            except TimeoutError:
                pass

    async def _round(self) -> None:
        try:
            await self._claim()
            clean = await self._compare()
            await self._writer.stamp(complete=clean)
        except (Fenced, NotLeader):
            raise
        except SinkError as error:
            self._fell(error)
            return
        if not self.up:
            log.info("redis holds the whole projection", pools=len(self._pools), nodes=len(self._nodes))
        self.up = True
        REDIS_UP.set(1)

    async def _claim(self) -> None:
        """Claim our term; where Redis knows a larger one, raise ours first (design, promise 2)."""
        while (known := await self._writer.claim(self._term())) != self._term():
            await self._raise_term(known + 1)

    async def _compare(self) -> bool:
        """Compare all and send what differs; whether Redis then holds everything."""
        found = await self._writer.audit(dict(self._pools), dict(self._nodes))
        again: list[Awaitable[bool]] = [
            self._repair(self._writer.replace_pool(self._pools[name])) for name in found.pools if name in self._pools
        ]
        again += [
            self._repair(self._writer.replace_node(self._nodes[name])) for name in found.nodes if name in self._nodes
        ]
        again += [self._repair(self._writer.drop_pool(name)) for name in found.stray_pools if name not in self._pools]
        again += [self._repair(self._writer.drop_node(name)) for name in found.stray_nodes if name not in self._nodes]
        if found.stray_index:
            again.append(self._repair(self._writer.drop_index(found.stray_index)))
        if again:
            log.info("redis differed", writes=len(again))
        return all(await asyncio.gather(*again))

    async def _repair(self, write: Awaitable[None]) -> bool:
        async with self._room:
            try:
                await write
            except Retryable as error:
                self._fell(error)
                return False
        WRITES.labels("redis", "repair", "ok").inc()
        return True

    async def _send(self, verb: str, write: Callable[[], Awaitable[None]]) -> None:
        """Send now where Redis is up; what fails is found by the next round, which is woken."""
        if not self.up:
            return
        try:
            async with self._room:
                await write()
            WRITES.labels("redis", verb, "ok").inc()
        except Retryable as error:
            WRITES.labels("redis", verb, "error").inc()
            self._fell(error)

    def _fell(self, error: SinkError) -> None:
        if self.up or isinstance(error, Rejected):
            log.warning("redis does not take our writes; membership in Kubernetes goes on", error=str(error))
        self.up = False
        REDIS_UP.set(0)
        self._wake.set()
