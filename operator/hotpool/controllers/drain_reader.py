"""Reads of the reservations of draining nodes from Redis (requirement C5), as observations for the node controller.

Reservations of all nodes are sampled, too: a node whose dispatchers have reserved in the last hour can be drained by
their reservations alone.
"""

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from math import inf
from typing import Final, Protocol

import structlog

from hotpool.clock import Clock
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.drain import (
    EVIDENCE_SECONDS,
    SETTLED_SECONDS,
    Acceptance,
    DrainObservation,
    Ledger,
    drain_age,
    obstacle,
)
from hotpool.core.model import Key, Kind
from hotpool.core.node_liveness import NodeLivenessTracker
from hotpool.errors import FencedError, NotLeaderError, WriteError
from hotpool.projection.ledger import LEDGER_WINDOW

log = structlog.get_logger(__name__)

PERIOD_SECONDS: Final = 2.0
SAMPLE_SECONDS: Final = 6.0
"""Longest time between two samples. A reservation of a former client that ends within it may not be seen."""


class Reservations(Protocol):
    """The projection, as far as drains depend on it."""

    acceptance: Acceptance

    async def read_ledger(self, rank: int, nodes: Iterable[str]) -> Ledger:
        """Return the reservations; those of all nodes from this rank on. Raises WriteError."""

    def still_offered(self, nodes: frozenset[str]) -> frozenset[str]:
        """Return those of the nodes that Redis may still offer to dispatchers."""


class ReservationMemory(Protocol):
    """The longest reservation that any leader has seen, which outlives a leadership."""

    @property
    def longest_reservation(self) -> float:
        """Its duration in seconds."""

    def note_reservation(self, seconds: float) -> None:
        """Remember a duration, if it is the longest."""


class DrainReader:
    """Reader of one leadership. `redis`: None without a Redis. `mark`: called with the keys of changed nodes."""

    def __init__(
        self,
        redis: Reservations | None,
        cache: ClusterCache,
        clock: Clock,
        observations: MutableMapping[str, DrainObservation],
        mark: Callable[[Iterable[Key]], None],
        *,
        memory: ReservationMemory,
    ) -> None:
        self._redis = redis
        self._cache = cache
        self._clock = clock
        self._observations = observations
        self._mark = mark
        self._memory = memory
        self._reserved_at: dict[str, float] = {}
        """Node → time at which a reservation of it was last seen."""
        self._rank = 0
        self._sampled_at: float | None = None

    async def run(self) -> None:
        """Read until cancelled."""
        never = asyncio.Event()
        while True:
            await self.read()
            await self._clock.wait(never, self._clock() + PERIOD_SECONDS)

    async def read(self) -> None:
        """Observe all draining nodes once, and take a sample if one is due."""
        draining: dict[str, NodeLivenessTracker] = {}
        for name, tracker in list(self._cache.nodes.items()):
            await self._clock.pace()
            if tracker.view.draining:
                draining[name] = tracker
        sampled = self._sampled_at is not None and self._clock() < self._sampled_at + SAMPLE_SECONDS
        if sampled and not draining:
            self._store({})
            return
        ledger, error = await self._read_ledger(draining)
        if self._redis is None or ledger is None:
            self._store(
                {name: DrainObservation(_since(tracker), "RedisDown", error) for name, tracker in draining.items()}
            )
            return
        now = self._clock()
        self._sample(ledger, now)
        self._redis.acceptance.update(draining, self._redis.still_offered(frozenset(draining)), now)
        self._store({name: self._observe(name, tracker, ledger, now) for name, tracker in draining.items()})

    async def _read_ledger(self, nodes: Iterable[str]) -> tuple[Ledger | None, str]:
        if self._redis is None:
            return None, "the operator has no Redis, so nothing shows which dispatchers know of the drain"
        try:
            return await self._redis.read_ledger(self._rank, nodes), ""
        except (NotLeaderError, FencedError):
            raise
        except WriteError as error:
            self._redis.acceptance.reset()
            return None, str(error)

    def _sample(self, ledger: Ledger, now: float) -> None:
        self._sampled_at = now
        if ledger.longest:
            self._memory.note_reservation(ledger.longest + SAMPLE_SECONDS)
        self._rank = self._rank + LEDGER_WINDOW if self._rank + LEDGER_WINDOW < ledger.total else 0
        self._reserved_at = {
            name: at
            for name, at in (self._reserved_at | dict.fromkeys(ledger.reserved, now)).items()
            if at > now - EVIDENCE_SECONDS
        }

    def _is_served(self, node: str) -> bool:
        return any(pool.pool.spec.service and node in pool.members for pool in self._cache.pools.values())

    def _observe(self, name: str, tracker: NodeLivenessTracker, ledger: Ledger, now: float) -> DrainObservation:
        accepted = self._redis.acceptance.since(name) if self._redis else inf
        age = drain_age(tracker.view, self._clock.unix())
        longest = max(SAMPLE_SECONDS, self._memory.longest_reservation)
        return DrainObservation(
            since=_since(tracker),
            obstacle=obstacle(ledger, accepted, now, age, longest),
            in_use=ledger.in_use.get(name),
            last_expiry=ledger.last_expiry.get(name),
            by_service=ledger.by_service.get(name, {}),
            reserved=name in self._reserved_at,
            served=self._is_served(name),
            settled=tracker.seen_at is not None and tracker.seen_at >= accepted + SETTLED_SECONDS,
        )

    def _store(self, observations: dict[str, DrainObservation]) -> None:
        changed = {name for name, seen in observations.items() if self._observations.get(name) != seen}
        ended = self._observations.keys() - observations.keys()
        for name in ended:
            del self._observations[name]
        self._observations.update(observations)
        self._mark([Key(Kind.NODE, name) for name in changed])


def _since(tracker: NodeLivenessTracker) -> str | None:
    status = tracker.view.node.drain_status
    return status.since if status else None
