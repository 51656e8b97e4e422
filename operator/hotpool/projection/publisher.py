"""Keeps Redis equal to the last images that the reconciler gave (requirements E1, E5), whatever happens to Redis.

Its round, each 5 s, compares and re-sends what differs. While Redis is away images are only remembered. It must not
decide what an image holds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

import structlog

from hotpool.errors import FencedError, NotLeaderError, WriteError
from hotpool.observability.metrics import DRIFT, REDIS_UP, WRITES
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.drift_check import DriftReport
from hotpool.projection.history import KEPT
from hotpool.projection.keys import entry
from hotpool.projection.writer import RedisWriter

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
MAX_CONCURRENT_WRITES: Final = 16


class Publisher:
    """The wanted images, and whether Redis is believed to hold them.

    `term` tells our term; `raise_term` stores a larger one where Redis knows a larger one than ours; `cluster` tells
    what tells our cluster from others, or raises SinkError; `tell` is told whether Redis is well, and why not.
    """

    def __init__(
        self,
        writer: RedisWriter,
        *,
        term: Callable[[], int],
        raise_term: Callable[[int], Awaitable[None]],
        cluster: Callable[[], Awaitable[str]],
        tell: Callable[[bool, str], None] = lambda _well, _why: None,
    ) -> None:
        self._writer = writer
        self._term = term
        self._raise_term = raise_term
        self._cluster = cluster
        self._on_state_change = tell
        self._pools: dict[str, PoolDocument] = {}
        self._nodes: dict[str, NodeDocument] = {}
        self._hidden: set[str] = set()
        """Nodes that are there, of which Redis shall know no capability."""
        self._pending_history: dict[str, tuple[str, ...]] = {}
        """Node → its transitions that Redis did not accept yet, oldest first."""
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(MAX_CONCURRENT_WRITES)
        self._repairs = asyncio.Semaphore(MAX_CONCURRENT_WRITES)
        """Apart from `_room`: a change must not wait behind the repair of a whole fleet."""
        self._round_incomplete = False
        """An image was not sent, or not accepted, since the last round began: that round may have missed it."""
        self.healthy = False
        self.last_error = "not compared yet"
        """Why it is not up, in plain words; empty when it is."""

    def published(self, name: str) -> PoolDocument | None:
        """What Redis shall hold of a pool, to make the next image from."""
        return self._pools.get(name)

    async def publish_pool(self, image: PoolDocument) -> bool:
        """This is what Redis shall hold of a pool from now on; whether it does now."""
        if self._pools.get(image.name) == image:
            return self.healthy
        self._pools[image.name] = image
        return await self._send("replace_pool", partial(self._put_pool, image.name))

    async def publish_node(self, image: NodeDocument, happened: str | None = None) -> None:
        """This is what Redis shall hold of a node from now on. `happened`: a transition to keep (history)."""
        self._hidden.discard(image.name)
        if self._queue_history(image.name, happened) or self._nodes.get(image.name) != image:
            self._nodes[image.name] = image
            await self._send("replace_node", partial(self._put_node, image.name))

    async def withdraw_node(self, name: str, happened: str | None = None) -> None:
        """Redis shall know nothing that this node can do, but what happened to it."""
        known = self._nodes.pop(name, None)
        self._hidden.add(name)
        if self._queue_history(name, happened) or known:
            await self._send("drop_node", partial(self._put_node, name))

    async def delete_pool(self, name: str) -> None:
        """Redis shall not know this pool any more."""
        if self._pools.pop(name, None):
            await self._send("drop_pool", partial(self._put_pool, name))

    async def delete_node(self, name: str) -> None:
        """Redis shall not know this node any more, nor what happened to it."""
        known = self._nodes.pop(name, None) or name in self._hidden
        self._hidden.discard(name)
        self._pending_history.pop(name, None)
        if known:
            await self._send("drop_node", partial(self._put_node, name))

    def _queue_history(self, name: str, happened: str | None) -> bool:
        if happened:
            self._pending_history[name] = (*self._pending_history.get(name, ()), happened)[-KEPT:]
        return happened is not None

    async def run(self) -> None:
        """Rounds for ever; to be started when every pool and node was given once. Raises Fenced and NotLeader."""
        while True:
            self._wake.clear()
            await self._round()
            try:
                async with asyncio.timeout(ROUND_SECONDS if self.healthy else RETRY_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(RETRY_SECONDS / 10)
            except TimeoutError:
                pass

    async def _round(self) -> None:
        self._round_incomplete = False
        try:
            await self._claim()
            clean = await self._compare()
            await self._writer.stamp(complete=clean and not self._round_incomplete)
        except (FencedError, NotLeaderError):
            raise
        except WriteError as error:
            self._mark_unhealthy(error)
            return
        if clean:
            self._mark_healthy()

    async def _claim(self) -> None:
        """Claim our term; where Redis knows a larger one, raise ours first."""
        cluster = await self._cluster()
        while (known := await self._writer.claim(self._term(), cluster)) != self._term():
            await self._raise_term(known + 1)

    async def _compare(self) -> bool:
        """Compare all and send what differs; whether Redis then holds everything."""
        found = await self._writer.check_drift(dict(self._pools), dict(self._nodes))
        _count(found)
        again = [partial(self._put_pool, name) for name in found.pools | found.stray_pools]
        again += [
            partial(self._put_node, name) for name in found.nodes | found.stray_nodes | self._pending_history.keys()
        ]
        if found.stray_index:
            again.append(partial(self._drop_index, found.stray_index))
        if again:
            log.info("redis differed", writes=len(again))
        failures: list[WriteError] = []
        await asyncio.gather(*(self._repair(write, failures) for write in again))
        return not failures

    async def _put_pool(self, name: str) -> None:
        """Make Redis hold what is wanted of a pool now that it is this write's turn, not what was when it was found."""
        image = self._pools.get(name)
        await (self._writer.replace_pool(image) if image else self._writer.drop_pool(name))

    async def _put_node(self, name: str) -> None:
        image, told = self._nodes.get(name), self._pending_history.get(name, ())
        if image:
            await self._writer.replace_node(image, told)
        else:
            await self._writer.drop_node(name, told, forget=name not in self._hidden)
        rest = tuple(entry for entry in self._pending_history.pop(name, ()) if entry not in told)
        if rest:
            self._pending_history[name] = rest

    async def _drop_index(self, fields: Iterable[str]) -> None:
        wanted = {entry(image.generator, image.key or "") for image in self._pools.values() if image.generator}
        await self._writer.drop_index(field for field in fields if field not in wanted)

    async def _repair(self, write: Callable[[], Awaitable[None]], failures: list[WriteError]) -> None:
        """One write of a round, unless so many failed that Redis must be away; adds its own failure."""
        async with self._repairs:
            if len(failures) >= MAX_CONCURRENT_WRITES:
                return
            try:
                await write()
            except (FencedError, NotLeaderError):
                raise
            except WriteError as error:
                self._mark_unhealthy(error)
                failures.append(error)
            else:
                WRITES.labels("redis", "repair", "ok").inc()

    async def _send(self, verb: str, write: Callable[[], Awaitable[None]]) -> bool:
        """Send now where Redis is up; whether it was accepted. The next round, which is woken, finds what failed."""
        if not self.healthy:
            self._round_incomplete = True
            return False
        try:
            async with self._room:
                if not self.healthy:  # it fell while this write waited for its turn
                    self._round_incomplete = True
                    return False
                await write()
        except (FencedError, NotLeaderError):
            raise
        except WriteError as error:
            WRITES.labels("redis", verb, "error").inc()
            self._mark_unhealthy(error)
            self._round_incomplete = True
            self._wake.set()
            return False
        WRITES.labels("redis", verb, "ok").inc()
        return True

    def _mark_healthy(self) -> None:
        if not self.healthy:
            log.info("redis holds the whole projection", pools=len(self._pools), nodes=len(self._nodes))
        self.healthy, self.last_error = True, ""
        REDIS_UP.set(1)
        self._on_state_change(True, "")
        if self._round_incomplete:
            self._wake.set()

    def _mark_unhealthy(self, error: WriteError) -> None:
        if self.last_error != str(error):
            log.warning("redis does not take our writes; membership in Kubernetes goes on", error=str(error))
        self.healthy, self.last_error = False, str(error)
        REDIS_UP.set(0)
        self._on_state_change(False, str(error))


def _count(found: DriftReport) -> None:
    strays = found.stray_pools | found.stray_nodes
    drift = {"pool": found.pools, "node": found.nodes, "index": found.stray_index, "stray": strays}
    for what, names in drift.items():
        DRIFT.labels(what).inc(len(names))
