"""Order of overlapping writes to Redis that state which services of a node meet a pool (requirement E7).

The write of a pool states it for all members, the write of a node for all its pools, each as of the moment at which it
was planned. One that arrives after a later one would undo it, so the later one waits. Writes that agree do not wait.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class _Write:
    services: Mapping[str, str]
    """Node, of the write of a pool, or pool, of that of a node → services that meet the pool."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ServiceWriteOrder:
    """Writes in progress, at most one of each pool and node. Enter the block without an `await` after the plan."""

    def __init__(self) -> None:
        self._pools: dict[str, _Write] = {}
        self._nodes: dict[str, _Write] = {}

    def of_pool(self, pool: str, services: Mapping[str, str]) -> AbstractAsyncContextManager[None]:
        """Return the block of a write of a pool. `services`: by node; all services of any other node meet the pool."""
        return _in_turn(
            self._pools,
            pool,
            _Write(services),
            [
                write.ended
                for node, write in self._nodes.items()
                if pool in write.services and write.services[pool] != services.get(node)
            ],
        )

    def of_node(self, node: str, services: Mapping[str, str]) -> AbstractAsyncContextManager[None]:
        """Return the block of a write of a node. `services`: by pool; the write says nothing of any other pool."""
        return _in_turn(
            self._nodes,
            node,
            _Write(services),
            [
                write.ended
                for pool, stated in services.items()
                if (write := self._pools.get(pool)) and write.services.get(node) != stated
            ],
        )


@asynccontextmanager
async def _in_turn(
    writes: dict[str, _Write], name: str, write: _Write, earlier: list[asyncio.Event]
) -> AsyncIterator[None]:
    writes[name] = write  # before the wait, so that a later write waits for this one
    try:
        for ended in earlier:
            await ended.wait()
        yield
    finally:
        del writes[name]
        write.ended.set()
