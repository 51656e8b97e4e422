"""Log of membership: one line per node that joins or leaves a pool or changes its state (requirement F8).

A task of its own writes the lines in turns, so that a mass change delays nothing else. Must not decide. The fields are
an interface: `hotpool events --log` reads them.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final

import structlog

from hotpool.clock import Clock
from hotpool.common.lossy_stream import is_congested
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Member
from hotpool.core.planning.pool_plan import node_ready
from hotpool.events.builders import MembershipDifference

log = structlog.get_logger(__name__)

MAX_PENDING: Final = 200_000
"""Changes that wait to be written, while the log takes no more lines."""
_PAUSE_SECONDS: Final = 0.01


class MembershipLog:
    """Changes of membership that are not written to the log yet."""

    def __init__(self, cache: ClusterCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._queue: deque[tuple[str, MembershipDifference, Mapping[str, str]]] = deque()
        self._pending = 0
        self._wake = asyncio.Event()

    def add(self, pool: str, difference: MembershipDifference, reasons: Mapping[str, str]) -> None:
        """Queue the lines of one round of a pool. `reasons`: why each node left."""
        if self._pending + len(difference) > MAX_PENDING:
            counts = {name: len(getattr(difference, name)) for name in ("joined", "left", "changed")}
            log.warning("changes not logged one by one", pool=pool, **counts)
        elif difference:
            self._queue.append((pool, difference, reasons))
            self._pending += len(difference)
            self._wake.set()

    async def run(self) -> None:
        """Write lines until cancelled, then the rest at once."""
        lines = self._write_lines()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for _ in lines:
                    await self._clock.pace()
                    while is_congested():  # noqa: ASYNC110 - seldom, and short.
                        await asyncio.sleep(_PAUSE_SECONDS)
                lines = self._write_lines()
        finally:
            for _ in lines:
                pass

    def _write_lines(self) -> Iterator[None]:
        """Write one line at each step."""
        while self._queue:
            pool, difference, reasons = self._queue.popleft()
            for node, was in difference.left.items():
                self._write("left", pool, was, state=None, former=was.state, reason=reasons[node])
                yield
            for node, (was, now) in difference.changed.items():
                self._write("changed", pool, now, state=now.state, former=was.state, reason=self._ready_reason(node))
                yield
            for node, now in difference.joined.items():
                self._write("joined", pool, now, state=now.state, former=None, reason=self._ready_reason(node))
                yield

    def _write(self, change: str, pool: str, member: Member, **fields: str | None) -> None:
        self._pending -= 1
        log.info(change, pool=pool, node=member.node, **fields, since=member.since)

    def _ready_reason(self, node: str) -> str:
        """Return the reason of the node's condition Ready."""
        tracker = self._cache.nodes.get(node)
        return node_ready(tracker.view).reason if tracker else "Deleted"
