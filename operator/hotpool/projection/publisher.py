"""Keeps Redis equal to the last images that the reconciler gave (behaviour E1, E5), whatever happens to Redis.

Its round, each 5 s, compares and re-sends what differs. While Redis is away images are only remembered. It must not
decide what an image holds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

import structlog

from hotpool.errors import Fenced, NotLeader, SinkError
from hotpool.observability.metrics import DRIFT, REDIS_UP, WRITES
from hotpool.projection.documents import NodeImage, PoolImage
from hotpool.projection.drift_check import AuditResult
from hotpool.projection.history import KEPT
from hotpool.projection.keys import entry
from hotpool.projection.writer import Writer

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
_AT_ONCE: Final = 16


class Mirror:
    """The wanted images, and whether Redis is believed to hold them.

    `term` tells our term; `raise_term` stores a larger one where Redis knows a larger one than ours; `cluster` tells
    what tells our cluster from others, or raises SinkError; `tell` is told whether Redis is well, and why not.
    """

    def __init__(
        self,
        writer: Writer,
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
        self._tell = tell
        self._pools: dict[str, PoolImage] = {}
        self._nodes: dict[str, NodeImage] = {}
        self._hidden: set[str] = set()
        """Nodes that are there, of which Redis shall know no capability."""
        self._untold: dict[str, tuple[str, ...]] = {}
        """Node → its transitions that Redis did not accept yet, oldest first."""
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._repairs = asyncio.Semaphore(_AT_ONCE)
        """Apart from `_room`: a change must not wait behind the repair of a whole fleet."""
        self._behind = False
        """An image was not sent, or not accepted, since the last round began: that round may have missed it."""
        self.up = False
        self.why = "not compared yet"
        """Why it is not up, in plain words; empty when it is."""

    def wanted(self, name: str) -> PoolImage | None:
        """What Redis shall hold of a pool, to make the next image from."""
        return self._pools.get(name)

    async def pool(self, image: PoolImage) -> bool:
        """This is what Redis shall hold of a pool from now on; whether it does now."""
        if self._pools.get(image.name) == image:
            return self.up
        self._pools[image.name] = image
        return await self._send("replace_pool", partial(self._put_pool, image.name))

    async def node(self, image: NodeImage, happened: str | None = None) -> None:
        """This is what Redis shall hold of a node from now on. `happened`: a transition to keep (history)."""
        self._hidden.discard(image.name)
        if self._keep(image.name, happened) or self._nodes.get(image.name) != image:
            self._nodes[image.name] = image
            await self._send("replace_node", partial(self._put_node, image.name))

    async def hide_node(self, name: str, happened: str | None = None) -> None:
        """Redis shall know nothing that this node can do, but what happened to it."""
        known = self._nodes.pop(name, None)
        self._hidden.add(name)
        if self._keep(name, happened) or known:
            await self._send("drop_node", partial(self._put_node, name))

    async def no_pool(self, name: str) -> None:
        """Redis shall not know this pool any more."""
        if self._pools.pop(name, None):
            await self._send("drop_pool", partial(self._put_pool, name))

    async def no_node(self, name: str) -> None:
        """Redis shall not know this node any more, nor what happened to it."""
        known = self._nodes.pop(name, None) or name in self._hidden
        self._hidden.discard(name)
        self._untold.pop(name, None)
        if known:
            await self._send("drop_node", partial(self._put_node, name))

    def _keep(self, name: str, happened: str | None) -> bool:
        if happened:
            self._untold[name] = (*self._untold.get(name, ()), happened)[-KEPT:]
        return happened is not None

    async def run(self) -> None:
        """Rounds for ever; to be started when every pool and node was given once. Raises Fenced and NotLeader."""
        while True:
            self._wake.clear()
            await self._round()
            try:
                async with asyncio.timeout(ROUND_SECONDS if self.up else RETRY_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(RETRY_SECONDS / 10)
            except TimeoutError:
                pass

    async def _round(self) -> None:
        self._behind = False
        try:
            await self._claim()
            clean = await self._compare()
            await self._writer.stamp(complete=clean and not self._behind)
        except (Fenced, NotLeader):
            raise
        except SinkError as error:
            self._fell(error)
            return
        if clean:
            self._rose()

    async def _claim(self) -> None:
        """Claim our term; where Redis knows a larger one, raise ours first (design, promise 2)."""
        cluster = await self._cluster()
        while (known := await self._writer.claim(self._term(), cluster)) != self._term():
            await self._raise_term(known + 1)

    async def _compare(self) -> bool:
        """Compare all and send what differs; whether Redis then holds everything."""
        found = await self._writer.audit(dict(self._pools), dict(self._nodes))
        _count(found)
        again = [partial(self._put_pool, name) for name in found.pools | found.stray_pools]
        again += [partial(self._put_node, name) for name in found.nodes | found.stray_nodes | self._untold.keys()]
        if found.stray_index:
            again.append(partial(self._drop_index, found.stray_index))
        if again:
            log.info("redis differed", writes=len(again))
        failures: list[SinkError] = []
        await asyncio.gather(*(self._repair(write, failures) for write in again))
        return not failures

    async def _put_pool(self, name: str) -> None:
        """Make Redis hold what is wanted of a pool now that it is this write's turn, not what was when it was found."""
        image = self._pools.get(name)
        await (self._writer.replace_pool(image) if image else self._writer.drop_pool(name))

    async def _put_node(self, name: str) -> None:
        image, told = self._nodes.get(name), self._untold.get(name, ())
        if image:
            await self._writer.replace_node(image, told)
        else:
            await self._writer.drop_node(name, told, forget=name not in self._hidden)
        rest = tuple(entry for entry in self._untold.pop(name, ()) if entry not in told)
        if rest:
            self._untold[name] = rest

    async def _drop_index(self, fields: Iterable[str]) -> None:
        wanted = {entry(image.generator, image.key or "") for image in self._pools.values() if image.generator}
        await self._writer.drop_index(field for field in fields if field not in wanted)

    async def _repair(self, write: Callable[[], Awaitable[None]], failures: list[SinkError]) -> None:
        """One write of a round, unless so many failed that Redis must be away; adds its own failure."""
        async with self._repairs:
            if len(failures) >= _AT_ONCE:
                return
            try:
                await write()
            except (Fenced, NotLeader):
                raise
            except SinkError as error:
                self._fell(error)
                failures.append(error)
            else:
                WRITES.labels("redis", "repair", "ok").inc()

    async def _send(self, verb: str, write: Callable[[], Awaitable[None]]) -> bool:
        """Send now where Redis is up; whether it was accepted. The next round, which is woken, finds what failed."""
        if not self.up:
            self._behind = True
            return False
        try:
            async with self._room:
                if not self.up:  # it fell while this write waited for its turn
                    self._behind = True
                    return False
                await write()
        except (Fenced, NotLeader):
            raise
        except SinkError as error:
            WRITES.labels("redis", verb, "error").inc()
            self._fell(error)
            self._behind = True
            self._wake.set()
            return False
        WRITES.labels("redis", verb, "ok").inc()
        return True

    def _rose(self) -> None:
        if not self.up:
            log.info("redis holds the whole projection", pools=len(self._pools), nodes=len(self._nodes))
        self.up, self.why = True, ""
        REDIS_UP.set(1)
        self._tell(True, "")
        if self._behind:
            self._wake.set()

    def _fell(self, error: SinkError) -> None:
        if self.why != str(error):
            log.warning("redis does not take our writes; membership in Kubernetes goes on", error=str(error))
        self.up, self.why = False, str(error)
        REDIS_UP.set(0)
        self._tell(False, str(error))


def _count(found: AuditResult) -> None:
    strays = found.stray_pools | found.stray_nodes
    drift = {"pool": found.pools, "node": found.nodes, "index": found.stray_index, "stray": strays}
    for what, names in drift.items():
        DRIFT.labels(what).inc(len(names))
