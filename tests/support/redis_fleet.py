"""The worker of Redis with a cache whose objects the test decides, for tests of Redis and its failures.

The pools are paused, so their members are those of their slices.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import TimeoutError as RedisTimeoutError
from tests.support.builders import core_report, member, open_cache, pool
from tests.support.leadership import FixedLeadership

from hotpool.clock import Clock
from hotpool.controllers.redis_target import RedisTarget
from hotpool.controllers.worker import STARTING, Worker
from hotpool.core.model import Endpoint, Key, Kind, Meta, Node, Slice, StoredCondition, TypeState
from hotpool.events.recorder import EventRecorder
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.keys import FleetKeys
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hotpool.api.slice import MemberState
    from hotpool.core.model import Observed
    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

HANG_SECONDS = 20.0
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)),))
_STATES: Final[tuple[MemberState, ...]] = ("Ready", "Suspect", "Draining")
"""In the order of `PoolDocument.members`."""


def pool_of(*nodes: str) -> PoolDocument:
    """Return the document of pool `zh-en` with these Ready members."""
    return PoolDocument("zh-en", "u1", "pairs", "zh-en", frozenset(nodes), frozenset(), frozenset())


async def until(condition: Callable[[], Awaitable[bool] | bool], seconds: float = HANG_SECONDS) -> None:
    """Wait until the condition is true. Raise AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        with suppress(RedisTimeoutError):  # a busy machine answers late
            if await result if inspect.isawaitable(result) else result:
                return
        assert time.monotonic() < deadline, f"not true after {seconds} s"
        await asyncio.sleep(0.01)


def holds(server: RedisServer, node: str) -> bool:
    """Return True if the node is the only Ready member of pool `zh-en`."""
    ready = FleetKeys("hotpool", "speech").pool("zh-en")[1]
    return server.ask("ZRANGE", ready, "0", "-1") == f"*1\r\n${len(node)}\r\n{node}\r\n".encode()


class RedisFleet:
    """Pools and nodes in a cache, and the worker that writes them."""

    def __init__(
        self, writer: RedisWriter, leadership: FixedLeadership | None = None, clock: Clock | None = None
    ) -> None:
        self.leadership = leadership or FixedLeadership(3)
        self.cache = open_cache()
        self.cluster: str | Exception = "cluster-1"
        self.errors: list[str] = []
        """Each error that the worker reported, empty for none, in order."""
        self._clock = clock or Clock()
        recorder = EventRecorder(self.cache, self._clock)
        target = RedisTarget(writer, self.cache, self._clock, self.leadership, self._cluster_id, recorder=recorder)
        self.worker = Worker(target, self._clock)
        self._versions = count(1)

    async def _cluster_id(self) -> str:
        if isinstance(self.cluster, Exception):
            raise self.cluster
        return self.cluster

    @property
    def error(self) -> str:
        """Reason why Redis does not hold everything; empty if it does."""
        return self.worker.error

    @property
    def healthy(self) -> bool:
        """True if Redis holds everything, as of the last drift check."""
        return not self.worker.error

    def set_pool(self, document: PoolDocument) -> None:
        """Create or change a pool and its slice."""
        generated = {"by": document.generator, "kind": "Hash", "key": document.key}
        spec: dict[str, Any] = {"generated": generated} if document.generator else {}
        self.put(pool(document.name, version=next(self._versions), uid=document.uid, paused=True, **spec))
        groups = zip(_STATES, document.members, strict=True)
        members = tuple(member(node, state) for state, nodes in groups for node in nodes)
        name = f"{document.name}-0"
        self.put(Slice(Meta(name, f"uid-{name}", next(self._versions)), document.name, 1, members))

    def set_node(self, document: NodeDocument, *, leaving: bool = False) -> None:
        """Make a node report these types. Redis must not hold one that is leaving."""
        sequence = next(self._versions)
        types = {kind: TypeState(ready, reason, ids) for kind, ready, reason, ids in document.capabilities}
        report = core_report(types=types, sequence=sequence, leaving=leaving)
        meta, live = Meta(document.name, f"uid-{document.name}", sequence), StoredCondition("True", "Live", "", "t")
        self.put(Node(meta, report=report, conditions={"Ready": live}))

    def set_endpoints(self, node: str, *endpoints: Endpoint) -> None:
        """Allow these endpoints of a node, as if its agent had reported them."""
        tracker = self.cache.nodes[node]
        tracker.view = replace(tracker.view, endpoints={endpoint.service: endpoint for endpoint in endpoints})
        self._add({Key(Kind.NODE, node)})

    def delete(self, kind: Kind, name: str) -> None:
        """Delete a pool or a node."""
        self._add(self.cache.delete(kind, name, self.cache.identities(kind)[name].uid))

    def put(self, observed: Observed) -> None:
        """Store an object in the cache, and write what it affects."""
        keys = self.cache.upsert(observed, self._clock())
        while not self.cache.matches.done:
            keys |= self.cache.match_step()
        self._add(keys)

    def _add(self, keys: set[Key]) -> None:
        self.worker.add(keys, self._clock())

    async def run(self) -> None:
        """Write all that is set, then each change, until cancelled. Raises FencedError and NotLeaderError."""
        kinds = Kind.POOL, Kind.NODE
        self.worker.restore([Key(kind, name) for kind in kinds for name in self.cache.identities(kind)])
        async with aclosing(self.worker.run()) as results:
            async for _ in results:
                if self.error not in {STARTING, *self.errors[-1:]}:
                    self.errors.append(self.error)


def redis_fleet(client: Client, term: int = 3) -> RedisFleet:
    """Return a fleet in the namespace `speech` of a real server."""
    leadership = FixedLeadership(term)
    return RedisFleet(RedisWriter(client, leadership, namespace="speech"), leadership)


@asynccontextmanager
async def leading(fleet: RedisFleet, seconds: float = HANG_SECONDS) -> AsyncIterator[RedisFleet]:
    """Run the worker in the block, which begins when Redis holds everything. The worker must not end by itself."""
    task = asyncio.create_task(fleet.run())
    try:
        await until(lambda: fleet.healthy or task.done(), seconds)
        yield fleet
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def running(client: Client) -> AsyncIterator[RedisFleet]:
    """Run a fleet in the block: a pool of two, and a node. Close the client at its end."""
    fleet = redis_fleet(client)
    fleet.set_pool(pool_of("edge-1", "edge-2"))
    fleet.set_node(NODE)
    try:
        async with leading(fleet):
            yield fleet
    finally:
        await client.aclose()
