"""Publisher: keeps Redis equal to the latest desired documents (E1, E5).

A round every 5 s compares all documents and rewrites those that differ. While Redis is unavailable, documents are only
stored. Must not decide the content of a document.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from hotpool.errors import FencedError, NotLeaderError, WriteError
from hotpool.observability.metrics import DRIFT, REDIS_UP, WRITES
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.drift_check import DriftReport
from hotpool.projection.history import MAX_TRANSITIONS
from hotpool.projection.keys import index_field
from hotpool.projection.redis_errors import OF_ONE_NAME
from hotpool.projection.writer import RedisWriter

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
MAX_CONCURRENT_WRITES: Final = 16


class Publisher:
    """Publication of pools and nodes to Redis, with retries while Redis is down.

    `term` returns the number of this leader. `raise_term` stores a larger one after Redis returned a larger one.
    `cluster` returns the id of this cluster, or raises WriteError. `on_state_change` receives (healthy, error or "").
    """

    def __init__(
        self,
        writer: RedisWriter,
        *,
        term: Callable[[], int],
        raise_term: Callable[[int], Awaitable[None]],
        cluster: Callable[[], Awaitable[str]],
        on_state_change: Callable[[bool, str], None] = lambda _healthy, _error: None,
    ) -> None:
        self._writer = writer
        self._term = term
        self._raise_term = raise_term
        self._cluster = cluster
        self._on_state_change = on_state_change
        self._pools: dict[str, PoolDocument] = {}
        self._nodes: dict[str, NodeDocument] = {}
        self._hidden: set[str] = set()
        """Existing nodes whose capability must be absent from Redis."""
        self._pending_history: dict[str, tuple[str, ...]] = {}
        """Node → transitions that Redis has not accepted yet, oldest first."""
        self._wake = asyncio.Event()
        self._write_slots = asyncio.Semaphore(MAX_CONCURRENT_WRITES)
        self._repair_slots = asyncio.Semaphore(MAX_CONCURRENT_WRITES)
        """Separate from `_write_slots`, because a change must not wait behind the repair of a whole fleet."""
        self._round_incomplete = False
        """A document was not sent, or not accepted, since the last round began. That round may have missed it."""
        self._reachable = False
        """Changes are sent at once. False after a failure that is not of one name; the next round tries again."""
        self._stored: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
        """Digests of pools and nodes that a former leader wrote, until the first comparison."""
        self.healthy = False
        self.last_error = "not compared yet"
        """Reason why Redis is not healthy; empty if it is."""

    def published(self, name: str) -> PoolDocument | None:
        """Return the desired document of a pool, the base of the next one."""
        return self._pools.get(name)

    async def publish_pool(self, document: PoolDocument) -> bool:
        """Set the desired document of a pool and send it. Return True if Redis holds it."""
        if self._pools.get(document.name) == document:
            return self.healthy
        self._pools[document.name] = document
        if self._stored[0].get(document.name) == document.digest:
            return False  # confirmed by the first comparison
        return await self._send("replace_pool", partial(self._put_pool, document.name))

    async def publish_node(self, document: NodeDocument, transition: str | None = None) -> None:
        """Set the desired document of a node and send it. `transition`: an encoded entry for the history."""
        self._hidden.discard(document.name)
        if self._queue_history(document.name, transition) or self._nodes.get(document.name) != document:
            self._nodes[document.name] = document
            if self._stored[1].get(document.name) != document.digest:
                await self._send("replace_node", partial(self._put_node, document.name))

    async def withdraw_node(self, name: str, transition: str | None = None) -> None:
        """Delete the node's capability from Redis, and keep its history."""
        known = self._nodes.pop(name, None) or name in self._stored[1]
        self._hidden.add(name)
        if self._queue_history(name, transition) or known:
            await self._send("drop_node", partial(self._put_node, name))

    async def delete_pool(self, name: str) -> None:
        """Delete a pool from Redis."""
        if self._pools.pop(name, None):
            await self._send("drop_pool", partial(self._put_pool, name))

    async def delete_node(self, name: str) -> None:
        """Delete a node and its history from Redis."""
        known = self._nodes.pop(name, None) or name in self._hidden
        self._hidden.discard(name)
        self._pending_history.pop(name, None)
        if known:
            await self._send("drop_node", partial(self._put_node, name))

    def _queue_history(self, name: str, transition: str | None) -> bool:
        if transition:
            self._pending_history[name] = (*self._pending_history.get(name, ()), transition)[-MAX_TRANSITIONS:]
        return transition is not None

    async def follow(self, published: asyncio.Event) -> None:
        """Send changes since the former leader, until every pool and node was published.

        What is equal, and what nothing desires any more, is left to the first round. Raises FencedError and
        NotLeaderError.
        """
        while not published.is_set():
            if not self._reachable:
                try:
                    await self._claim()
                    self._stored = await self._writer.stored_digests()
                    self._reachable = True
                    await self._write_all(self._changed())
                except (FencedError, NotLeaderError):
                    raise
                except WriteError as error:
                    self._mark_unhealthy(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await published.wait()

    async def run(self) -> None:
        """Run rounds until cancelled.

        Start only after every pool and node was published. Raises FencedError and NotLeaderError.
        """
        while True:
            self._wake.clear()
            await self._round()
            try:
                async with asyncio.timeout(ROUND_SECONDS if self.healthy else RETRY_SECONDS):
                    await self._wake.wait()
                refused = self._reachable and not self.healthy
                await asyncio.sleep(RETRY_SECONDS if refused else RETRY_SECONDS / 10)
            except TimeoutError:
                pass

    async def _round(self) -> None:
        self._round_incomplete = False
        try:
            await self._claim()
            self._reachable, self._stored = True, ({}, {})
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
        """Claim the term of this leader in Redis. If Redis has a larger term, raise ours above it first."""
        cluster = await self._cluster()
        while (stored := await self._writer.claim(self._term(), cluster)) != self._term():
            await self._raise_term(stored + 1)

    async def _compare(self) -> bool:
        """Compare everything and write the differences, deletions first. Return True if Redis is complete then."""
        drift = await self._writer.check_drift(dict(self._pools), dict(self._nodes))
        _count_drift(drift)
        repairs = [partial(self._put_pool, name) for name in (*drift.stray_pools, *drift.pools)]
        nodes = drift.nodes | self._pending_history.keys() - drift.stray_nodes
        repairs += [partial(self._put_node, name) for name in (*drift.stray_nodes, *nodes)]
        if drift.stray_index:
            repairs.append(partial(self._drop_index, drift.stray_index))
        if repairs:
            log.info("redis drift found, rewriting", writes=len(repairs))
        return await self._write_all(repairs) and not drift.undecided

    def _changed(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """Yield a write for each document that differs from that of a former leader."""
        pools, nodes = self._stored
        for name, document in self._pools.items():
            if pools.get(name) != document.digest:
                yield partial(self._put_pool, name)
        for name, node in self._nodes.items():
            if nodes.get(name) != node.digest:
                yield partial(self._put_node, name)
        for name in self._hidden & nodes.keys():
            yield partial(self._put_node, name)

    async def _write_all(self, writes: Iterable[Callable[[], Awaitable[None]]]) -> bool:
        """Write concurrently. Return True if all writes succeeded."""
        failures: list[WriteError] = []
        await asyncio.gather(*(self._repair(write, failures) for write in writes))
        return not failures

    async def _put_pool(self, name: str) -> None:
        """Write the latest desired document of the pool, not the one that was current when drift was found."""
        document = self._pools.get(name)
        await (self._writer.replace_pool(document) if document else self._writer.drop_pool(name))

    async def _put_node(self, name: str) -> None:
        document, sent = self._nodes.get(name), self._pending_history.get(name, ())
        if document:
            await self._writer.replace_node(document, sent)
        else:
            await self._writer.drop_node(name, sent, delete_history=name not in self._hidden)
        unsent = tuple(entry for entry in self._pending_history.pop(name, ()) if entry not in sent)
        if unsent:
            self._pending_history[name] = unsent

    async def _drop_index(self, fields: Iterable[str]) -> None:
        wanted = {index_field(pool.generator, pool.key or "") for pool in self._pools.values() if pool.generator}
        await self._writer.drop_index(field for field in fields if field not in wanted)

    async def _repair(self, write: Callable[[], Awaitable[None]], failures: list[WriteError]) -> None:
        """Run one write of a round. Skip it after many failures that are not of one name: Redis is then unavailable."""
        async with self._repair_slots:
            if sum(not isinstance(error, OF_ONE_NAME) for error in failures) >= MAX_CONCURRENT_WRITES:
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
        """Send now if Redis is reachable. Return True if accepted. After a failure, start the next round soon."""
        if not self._reachable:
            self._round_incomplete = True
            return False
        try:
            async with self._write_slots:
                if not self._reachable:  # became unreachable while this write waited for a slot
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
            log.info("redis projection complete", pools=len(self._pools), nodes=len(self._nodes))
        self.healthy, self.last_error = True, ""
        REDIS_UP.set(1)
        self._on_state_change(True, "")
        if self._round_incomplete:
            self._wake.set()

    def _mark_unhealthy(self, error: WriteError) -> None:
        if self.last_error != str(error):
            log.warning("redis writes failing; Kubernetes membership is unaffected", error=str(error))
        self.healthy, self.last_error = False, str(error)
        self._reachable = self._reachable and isinstance(error, OF_ONE_NAME)
        REDIS_UP.set(0)
        self._on_state_change(False, str(error))


def _count_drift(drift: DriftReport) -> None:
    strays = drift.stray_pools | drift.stray_nodes
    counts = {"pool": drift.pools, "node": drift.nodes, "index": drift.stray_index, "stray": strays}
    for what, names in counts.items():
        DRIFT.labels(what).inc(len(names))
