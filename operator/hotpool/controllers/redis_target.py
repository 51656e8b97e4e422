"""Redis as a target (requirements E1 to E5): a document for each pool and each node, and the age of the whole.

The cache holds the desired state; the documents here are what was planned of it last. Removals need no room, so a full
Redis refuses single names only.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import structlog

from hotpool.clock import Clock
from hotpool.controllers.dispatch_rights import DispatchRights
from hotpool.controllers.ejection_status import EjectionStatus
from hotpool.controllers.pool_gauge import PoolGauge
from hotpool.controllers.redis_documents import node_document, pool_document, pool_services, service_exceptions
from hotpool.controllers.result import Direction, Result
from hotpool.controllers.service_write_order import ServiceWriteOrder
from hotpool.controllers.use_status import UseStatus
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.drain import Acceptance, Ledger
from hotpool.core.model import Key, Kind, Node, NodeView
from hotpool.core.node_history import NodeHistory
from hotpool.core.planning.pool_plan import plan_members, plan_node
from hotpool.errors import FencedError, NotLeaderError, RetryableError, UnavailableError, WriteError
from hotpool.events.recorder import EventRecorder
from hotpool.leadership import Leadership
from hotpool.observability.metrics import DRIFT, ENDPOINTS_ENABLED, WAITERS, WRITES
from hotpool.projection.documents import ANY_SERVICES, NodeDocument, PoolDocument
from hotpool.projection.drift_check import DriftReport
from hotpool.projection.history import MAX_TRANSITIONS, encode
from hotpool.projection.keys import index_field
from hotpool.projection.redis_errors import OF_ONE_NAME
from hotpool.projection.writer import RedisWriter

log = structlog.get_logger(__name__)


class RedisTarget:
    """The projection of one fleet."""

    name: Final = "redis"
    concurrency: Final[Mapping[Kind, int]] = {Kind.POOL: 16, Kind.NODE: 16}
    drift_seconds: Final[float | None] = 5.0

    def __init__(
        self,
        writer: RedisWriter,
        cache: ClusterCache,
        clock: Clock,
        leadership: Leadership,
        cluster: Callable[[], Awaitable[str]],
        *,
        recorder: EventRecorder,
    ) -> None:
        """`cluster`: id of this cluster, or a WriteError."""
        self._writer = writer
        self._cache = cache
        self._clock = clock
        self._leadership = leadership
        self._cluster = cluster
        self._pools: dict[str, PoolDocument] = {}
        self._nodes: dict[str, NodeDocument] = {}
        self._planned: dict[str, NodeView] = {}
        """Node → its view of which its document and transitions were made."""
        self._held: dict[Key, str | None] = {}
        """Digest of what Redis holds of a name; empty: a node's history alone; None: unknown."""
        self._accepted: dict[str, tuple[int, PoolDocument]] = {}
        """Pool → version of its membership that Redis holds, and its document."""
        self._ejections = EjectionStatus(cache, recorder)
        self._use = UseStatus(clock)
        self._slots: Mapping[str, Mapping[str, int]] = {}
        """Node → service → slots in use, as of the last drift check."""
        self._rights = DispatchRights()
        self._waiters = PoolGauge(WAITERS)
        self._order = ServiceWriteOrder()
        self.acceptance = Acceptance()
        """Since when Redis offers none of the draining nodes."""
        self._connected_before = False
        self._history = NodeHistory()
        self._transitions: dict[str, tuple[str, ...]] = {}
        """Node → transitions that Redis has not accepted yet, oldest first."""

    async def connect(self) -> Collection[Key]:
        """Claim our term, raised above a larger one in Redis. Return the keys that a former leader wrote.

        Return all keys if our user has gained or lost the rights on the keys of endpoints.
        """
        with _unavailable_unless_of_one_name():
            cluster, endpoints = await self._cluster(), not self._writer.endpoints_denied
            while (stored := await self._writer.claim(self._leadership.term, cluster)) != self._leadership.term:
                await self._leadership.raise_term(stored + 1)
            changed = endpoints == bool(self._writer.endpoints_denied)
            self._note_rights(self._writer.endpoints_denied, changed=changed)
            self._note_dispatch_rights()
            await self._begin_ledger()
            if self._connected_before:
                return [*self._held] if changed else ()
            pools, nodes = await self._writer.stored_digests()
        self._connected_before = True
        self._held |= {Key(Kind.POOL, name): digest for name, digest in pools.items()}
        self._held |= {Key(Kind.NODE, name): digest for name, digest in nodes.items()}
        return list(self._held)

    async def _begin_ledger(self) -> None:
        """Begin the ledger before a node is offered: one that is younger than a drain proves nothing about it (C5)."""
        try:
            await self._writer.read_ledger(0, ())
        except (FencedError, NotLeaderError, RetryableError):
            raise
        except WriteError as error:
            log.debug("no ledger of reservations yet", error=str(error))

    def _note_rights(self, denied: Collection[str], *, changed: bool) -> None:
        ENDPOINTS_ENABLED.set(not denied)
        if not changed:
            return
        self._accepted.clear()
        self._planned.clear()
        if denied:
            log.warning(
                "no endpoints in Redis: picks return nodes alone until the ACL grants these rights",
                missing=", ".join(denied),
            )
        else:
            log.info("the ACL of Redis grants the rights on endpoints: writing them")

    def _note_dispatch_rights(self) -> None:
        writer = self._writer
        self._rights.update(writer.failures_denied, writer.slots_denied, writer.waiting_denied)

    async def reconcile(self, key: Key) -> Result:
        """Write the document of a pool or node if Redis does not hold it."""
        with _unavailable_unless_of_one_name():
            if key.kind is Kind.POOL:
                return await self._reconcile_pool(key)
            await self._reconcile_node(key)
            return Result()

    async def _reconcile_pool(self, key: Key) -> Result:
        membership = self._cache.pools.get(key.name)
        if membership is None:
            self._pools.pop(key.name, None)
            self._accepted.pop(key.name, None)
            if key in self._held:
                await self._send(key, None, "drop_pool", self._writer.drop_pool(key.name))
            return Result()
        if not membership.matched:
            return Result(postponed=True)
        former = self._accepted.get(key.name)
        # The members of a paused or invalid pool are in its slices, which have no version.
        decided = not membership.pool.paused and not membership.pool.problem
        if decided and former and former[0] == membership.version:
            document, version = former[1], former[0]
        else:
            members = plan_members(membership, self._cache.slices.get(key.name, {}), ageing=self._cache.ageing)
            membership.record_plan(members.retained)
            version = membership.version
            denied, known = self._writer.endpoints_denied, self._pools.get(key.name)
            services = ANY_SERVICES if denied else pool_services(membership, members, self._cache)
            document = pool_document(membership.pool, members, services, known)
            self._pools[key.name] = document
        if self._held.get(key) != document.digest:
            self.acceptance.on_offer(document.ready)
            self.acceptance.on_offer(document.suspect)
            async with self._order.of_pool(key.name, document.services.exceptions):
                await self._send(key, document.digest, "replace_pool", self._writer.replace_pool(document))
        self._accepted[key.name] = version, document
        return Result(change=_direction(former[1] if former else None, document))

    async def _reconcile_node(self, key: Key) -> None:
        """Write the node's document, then its last transitions (requirements E3, F2)."""
        name, tracker = key.name, self._cache.nodes.get(key.name)
        if tracker is None or tracker.view.expired:
            self._nodes.pop(name, None)
            self._planned.pop(name, None)
            self._history.forget(name)
            self._transitions.pop(name, None)
            if key in self._held:
                await self._send(key, None, "drop_node", self._writer.drop_node(name))
            return
        if self._planned.get(name) is not tracker.view:
            self._plan_node(name, tracker.view)
        document = self._nodes.get(name)
        if document is None:
            if self._held.get(key, "") != "":
                await self._send(key, "", "drop_node", self._writer.drop_node(name, delete_history=False))
        elif self._held.get(key) != document.digest:
            services = service_exceptions(name, self._accepted, self._cache)
            async with self._order.of_node(name, services):
                await self._send(key, document.digest, "replace_node", self._writer.replace_node(document, services))
        if transitions := self._transitions.get(name):
            write = self._writer.append_history(name, transitions)
            await self._send(key, self._held.get(key, ""), "append_history", write)
            del self._transitions[name]

    def _plan_node(self, name: str, view: NodeView) -> None:
        """Note the document of a node, or that it has none, and its transition."""
        plan = plan_node(view, self._clock.timestamp())
        self._note_transition(name, view.node, plan.conditions[0].reason)
        document = node_document(view, plan.types, endpoints=not self._writer.endpoints_denied)
        if document is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = document
        self._planned[name] = view

    def _note_transition(self, name: str, node: Node, reason: str) -> None:
        stored = node.conditions.get("Ready")
        reported = node.report.types if node.report else {}
        transition = self._history.record(
            name, reason, reported, stored.reason if stored else None, self._clock.timestamp()
        )
        if transition:
            entries = (*self._transitions.get(name, ()), encode(transition))
            self._transitions[name] = entries[-MAX_TRANSITIONS:]

    async def _send(self, key: Key, digest: str | None, verb: str, write: Awaitable[None]) -> None:
        """Await a write. `digest`: what Redis holds of the name after it; None: nothing."""
        self._held[key] = None
        try:
            await write
        except WriteError:
            WRITES.labels("redis", verb, "error").inc()
            raise
        WRITES.labels("redis", verb, "ok").inc()
        if digest is None:
            del self._held[key]
        else:
            self._held[key] = digest

    async def read_ledger(self, rank: int, nodes: Iterable[str]) -> Ledger:
        """Return the reservations that Redis holds (requirement C5). Raises WriteError."""
        ledger, slots = await self._writer.read_ledger(rank, list(nodes)), self._slots
        return replace(
            ledger, by_service={node: slots[node] for node, number in ledger.in_use.items() if number and node in slots}
        )

    def still_offered(self, nodes: frozenset[str]) -> frozenset[str]:
        """Return those of the nodes that Redis may still offer: as Ready or Suspect members of a pool.

        While a write of a pool is under way or has failed, it may offer each of the pool's members.
        """
        names = {key.name for key in self._held if key.kind is Kind.POOL} | self._cache.pools.keys()
        found: set[str] = set()
        for name in names:
            accepted, membership = self._accepted.get(name), self._cache.pools.get(name)
            if accepted and self._held.get(Key(Kind.POOL, name)) == accepted[1].digest:
                found |= nodes & accepted[1].ready | nodes & accepted[1].suspect
            elif membership is None:
                return nodes
            else:
                found |= nodes & membership.members.keys()
        return frozenset(found)

    async def check_drift(self, settled: Callable[[], bool]) -> Collection[Key]:
        """Compare Redis with all documents (E1), stamp its age and completeness, and return the keys that differ."""
        with _unavailable_unless_of_one_name():
            drift = await self._writer.check_drift(dict(self._pools), dict(self._nodes))
            if not drift.claimed:
                raise UnavailableError("Redis has lost the projection")
            if self._writer.endpoints_denied and not await self._writer.missing_rights():
                raise UnavailableError("Redis grants the rights on endpoints: claiming again")
            _count_drift(drift)
            if drift.stray_index:
                wanted = {
                    index_field(pool.generator, pool.key or "") for pool in self._pools.values() if pool.generator
                }
                await self._writer.drop_index(field for field in drift.stray_index if field not in wanted)
            found = [Key(Kind.POOL, name) for name in (*drift.stray_pools, *drift.pools)]
            found += [Key(Kind.NODE, name) for name in (*drift.stray_nodes, *drift.nodes)]
            use = await self._writer.stamp(complete=not found and not drift.undecided and settled())
            if self._writer.failures_denied or self._writer.slots_denied or self._writer.waiting_denied:
                await self._writer.check_dispatch_rights()
            self._note_dispatch_rights()
            self._slots = use.slots or {}
            await self._use.update(use, self._pools, self._nodes)
            self._waiters.update(await self._writer.waiters(), self._pools)
            self._ejections.update(await self._writer.ejections(), self._pools)
        self._held |= dict.fromkeys(found)
        return found


@contextmanager
def _unavailable_unless_of_one_name() -> Iterator[None]:
    """Raise UnavailableError for a failure that is not of one pool or node."""
    try:
        yield
    except (FencedError, NotLeaderError, UnavailableError, *OF_ONE_NAME):
        raise
    except WriteError as error:
        raise UnavailableError(str(error)) from error


def _direction(former: PoolDocument | None, document: PoolDocument) -> Direction | None:
    if former is None or former.digest == document.digest:
        return None
    return "gain" if former.ready <= document.ready else "withdrawal"


def _count_drift(drift: DriftReport) -> None:
    strays = drift.stray_pools | drift.stray_nodes
    counts = {"pool": drift.pools, "node": drift.nodes, "index": drift.stray_index, "stray": strays}
    for what, names in counts.items():
        DRIFT.labels(what).inc(len(names))
