"""The straight path from what is seen to what is written (design, section 2).

Fed by the sources through `feed`, `heartbeats`, `deaf` and `hearing`; started by `__main__`. The phases of one key
read as a list: view, plan, diff, apply, record. It holds the gate, the deadlines and the pace; it decides nothing
about membership and knows no wire shape.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final

import structlog

from hotpool.api.meta import timestamp
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.clients import Reader, Unavailable
from hotpool.core.diff import DeleteSlice, conditions_differ, diff_slices, status_differs, status_is_urgent
from hotpool.core.model import Generator, Heartbeat, Key, Kind, Pool
from hotpool.core.offers import GeneratorSubject
from hotpool.core.plan import PoolPlan, plan_node, plan_pool
from hotpool.core.plan_generator import GeneratorPlan, plan_generator
from hotpool.core.state import State
from hotpool.metrics import APPLY, FAILURES, HEARING, HEARTBEATS, NODES, POOLS, REJECTED, TRANSITIONS
from hotpool.projection.images import NodeImage, PoolImage
from hotpool.projection.mirror import Mirror
from hotpool.sinks.errors import Fenced, NotLeader, Rejected, Retryable, SinkError, Stale
from hotpool.sinks.kube import KubeSink
from hotpool.sources.decode import Rejection, decode
from hotpool.workqueue import WorkQueue

log = structlog.get_logger(__name__)

AT_ONCE: Final = 16
"""Pools and generators worked on at the same time."""
NODES_AT_ONCE: Final = 8
"""Nodes worked on at the same time, apart: membership must not wait behind its own story (design, section 2)."""
ROUND_SECONDS: Final = 1.0
"""Slices and urgent status of one pool are written at most once in this time (behaviour D3)."""
SLOW_SECONDS: Final = 10.0
"""Counts by reason alone are written at most once in this time."""
AUDIT_SECONDS: Final = 300.0
_FIRST_AUDIT_SECONDS: Final = 10.0
"""The first audit comes early: it covers what happened between our listing and the start of the watches."""
_FIRST_BACKOFF: Final = 0.2
_LONGEST_BACKOFF: Final = 30.0


class Reconciler:
    """One fleet's state and the work on it; lives in one event loop."""

    def __init__(
        self,
        state: State,
        reader: Reader,
        kube: KubeSink,
        mirror: Mirror | None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._state = state
        self._reader = reader
        self._kube = kube
        self._mirror = mirror
        self._clock = clock
        self._membership, self._nodes = WorkQueue(AT_ONCE), WorkQueue(NODES_AT_ONCE)
        self._wake = asyncio.Event()
        self._deaf = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._unseen: set[Key] = set()
        """Keys not worked on since the gate opened; when there are none left, Redis may be compared."""
        self.swept = asyncio.Event()
        self._attempts: Counter[Key] = Counter()
        self._next_round: dict[str, float] = {}
        self._next_slow: dict[str, float] = {}

    def feed(self, kind: Kind, event: str | None, body: Any) -> None:
        """One watch event or listed object: decode, observe, mark."""
        seen = decode(kind, body)
        if isinstance(seen, Rejection):
            REJECTED.labels(kind.value).inc()
            log.warning("object cannot be read", kind=seen.kind, name=seen.name, why=seen.why)
        elif event == "DELETED":
            self._mark(self._state.forget(kind, seen.meta.name, seen.meta.uid))
        else:
            self._mark(self._state.observe(seen, self._clock()))

    def heartbeats(self, beats: Sequence[Heartbeat]) -> None:
        """Leases that were listed or changed."""
        HEARTBEATS.inc(len(beats))
        now = self._clock()
        for beat in beats:
            self._mark(self._state.heartbeat(beat, now))

    def deaf(self) -> None:
        """The Lease stream broke: silence does not count until it is open again."""
        self._deaf = True
        HEARING.set(0)

    @property
    def is_deaf(self) -> bool:
        """True while the Lease stream is broken."""
        return self._deaf

    def hearing(self) -> None:
        """The Lease stream is open."""
        HEARING.set(1)
        if self._deaf:
            self._deaf = False
            self._state.hear_again(self._clock())
            self._wake.set()

    async def open_gate(self) -> None:
        """List everything once; only then may anything be written (behaviour D9). Waits for the API server for ever."""
        while not self._state.gate_open:
            try:
                await self.audit()
            except Unavailable as error:
                log.warning("waiting for the API server", error=str(error))
                await asyncio.sleep(ROUND_SECONDS)
            else:
                self._state.gate_open = True
        self._unseen = {
            Key(kind, name) for kind in (Kind.NODE, Kind.POOL, Kind.GENERATOR) for name in self._state.known(kind)
        }
        self._unseen |= {Key(Kind.POOL, pool) for pool in self._state.slices}
        if not self._unseen:
            self.swept.set()
        self._mark(self._unseen)
        log.info("everything is listed", **{kind.value: len(self._state.known(kind)) for kind in Kind})

    async def audit(self) -> None:
        """Compare a completed LIST of each kind with what is known; absence is confirmed by a GET (behaviour C7)."""
        for kind in Kind:
            known = self._state.known(kind)
            listed = await self._reader.list(kind)
            for body in listed:
                self.feed(kind, None, body)
            present = {body["metadata"]["name"] for body in listed}
            for name in known.keys() - present:
                await self._refresh(kind, name, known[name])

    @property
    def largest_term(self) -> int:
        """The largest term that a slice carries."""
        return max((item.term for group in self._state.slices.values() for item in group.values()), default=0)

    async def run(self) -> None:
        """Work for ever; to be called when the gate is open and we lead. Raises NotLeader and Fenced."""
        next_audit = self._clock() + _FIRST_AUDIT_SECONDS
        while self._failed is None:
            now = self._clock()
            self._wake.clear()
            if not self._deaf:
                self._mark(self._state.tick(now))
            if now >= next_audit:
                next_audit = now + AUDIT_SECONDS
                self._start(self._audit_safely())
            for key, due in (*self._membership.take(now), *self._nodes.take(now)):
                self._start(self._work(key, due))
            NODES.set(len(self._state.nodes))
            POOLS.set(len(self._state.pools))
            await self._sleep(next_audit)
        raise self._failed

    async def finish(self) -> None:
        """Let the writes under way end."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sleep(self, next_audit: float) -> None:
        silence = None if self._deaf else self._state.next_deadline()
        due = (self._membership.next_due(), self._nodes.next_due())
        until = min(at for at in (next_audit, silence, *due) if at is not None)
        try:
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _mark(self, keys: Iterable[Key], at: float | None = None) -> None:
        due = self._clock() if at is None else at
        for key in keys:
            if self._lane(key).add(key, due):
                self._wake.set()

    def _lane(self, key: Key) -> WorkQueue:
        return self._nodes if key.kind is Kind.NODE else self._membership

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _audit_safely(self) -> None:
        try:
            await self.audit()
        except Unavailable as error:
            log.warning("audit failed", error=str(error))

    async def _work(self, key: Key, due: float) -> None:
        """One key; whatever goes wrong is told, and the key is tried again later."""
        try:
            if await self._reconcile(key):
                self._attempts.pop(key, None)
            APPLY.labels(key.kind.value).observe(self._clock() - due)
        except (NotLeader, Fenced) as error:
            self._failed = error
        except Stale as error:
            await self._refresh(error.kind, error.name, None)
            self._retry(key, error)
        except (Retryable, Rejected) as error:
            self._retry(key, error)
        except Exception as error:  # one key's trouble must not end the others' work.
            log.exception("reconciliation failed", kind=key.kind.value, name=key.name)
            self._retry(key, error)
        finally:
            self._lane(key).done(key)
            self._unseen.discard(key)
            if not self._unseen:
                self.swept.set()
            self._wake.set()

    def _retry(self, key: Key, error: Exception) -> None:
        FAILURES.labels(type(error).__name__).inc()
        at_once = isinstance(error, Stale) and not self._attempts[key]
        if at_once and key.kind is Kind.POOL:
            self._next_round.pop(key.name, None)
        delay = 0.0 if at_once else _FIRST_BACKOFF * 2 ** self._attempts[key]
        self._attempts[key] = min(self._attempts[key] + 1, 10)
        if delay:
            log.warning("write failed", kind=key.kind.value, name=key.name, error=str(error), retry_seconds=delay)
        self._mark([key], self._clock() + min(delay, _LONGEST_BACKOFF))

    async def _refresh(self, kind: Kind, name: str, uid: str | None) -> None:
        """Read one object anew; a 404 is the evidence that it is gone (behaviour C7)."""
        try:
            body = await self._reader.get(kind, name)
        except Unavailable as error:
            log.warning("refresh failed", error=str(error))
            return
        gone = uid or self._state.known(kind).get(name)
        if body is not None:
            self.feed(kind, None, body)
        elif gone:
            self._mark(self._state.forget(kind, name, gone))

    async def _reconcile(self, key: Key) -> bool:
        """Whether the key is settled; False where its writes were put off by the pace, which proves nothing."""
        match key.kind:
            case Kind.POOL:
                return await self._reconcile_pool(key)
            case Kind.NODE:
                await self._reconcile_node(key)
            case Kind.GENERATOR:
                await self._reconcile_generator(key)
            case Kind.SLICE:
                raise ValueError("a slice is reconciled with its pool")
        return True

    async def _reconcile_pool(self, key: Key) -> bool:
        subject = self._state.pools.get(key.name)
        if subject is None:
            self._next_round.pop(key.name, None)
            self._next_slow.pop(key.name, None)
            if self._mirror:
                await self._mirror.no_pool(key.name)
            return True
        applied = self._state.slices.get(key.name, {})
        plan = plan_pool(subject, applied, self._state.known_types, timestamp())
        results = await asyncio.gather(
            self._project_pool(subject.pool, plan), self._write_pool(key, subject.pool, plan), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results[1] is True

    async def _project_pool(self, pool: Pool, plan: PoolPlan) -> None:
        if self._mirror:
            await self._mirror.pool(_pool_image(pool, plan))

    async def _write_pool(self, key: Key, pool: Pool, plan: PoolPlan) -> bool:
        """Slices, then status; at most one round in a second, the first at once (behaviour D3). False: put off."""
        writes = diff_slices(pool, self._state.slices.get(key.name, {}), plan.slices)
        if not writes and not status_differs(pool.status, plan.status):
            return True
        now = self._clock()
        urgent = bool(writes) or status_is_urgent(pool.status, plan.status)
        allowed = (self._next_round if urgent else self._next_slow).get(key.name, 0.0)
        if now < allowed:
            self._mark([key], allowed)
            return False
        self._next_round[key.name] = now + ROUND_SECONDS
        self._next_slow[key.name] = now + SLOW_SECONDS
        for write in writes:
            self._record(Kind.SLICE, await self._kube.write_slice(pool, write))
            if isinstance(write, DeleteSlice):
                self._state.forget(Kind.SLICE, write.slice.meta.name, write.slice.meta.uid)
        await self._write_pool_status(pool, plan.status)
        return True

    async def _write_pool_status(self, pool: Pool, status: PoolStatus) -> None:
        if status_differs(pool.status, status):
            self._record(Kind.POOL, await self._kube.write_pool_status(pool, status))

    async def _reconcile_node(self, key: Key) -> None:
        record = self._state.nodes.get(key.name)
        plan = plan_node(record.view, timestamp()) if record else None
        if self._mirror and (plan is None or plan.types is None):
            await self._mirror.no_node(key.name)
        elif self._mirror and plan and plan.types is not None:
            shown = tuple((name, t.ready, t.reason, t.services) for name, t in sorted(plan.types.items()))
            await self._mirror.node(NodeImage(key.name, shown))
        if record and plan and conditions_differ(record.view.node.conditions, plan.conditions):
            written = await self._kube.write_node_conditions(record.view.node.meta, plan.conditions)
            TRANSITIONS.labels(plan.conditions[0].reason).inc()
            self._mark(self._record(Kind.NODE, written))  # it may hold a report that no watch has brought yet

    async def _reconcile_generator(self, key: Key) -> None:
        subject = self._state.generators.get(key.name)
        if subject is None:
            return
        pools = dict(self._state.owned.of(subject.generator.meta.uid))
        plan = plan_generator(subject, pools, self._state.pools, self._clock(), timestamp())
        if plan.recheck_at is not None:
            self._mark([key], plan.recheck_at)
        refused = await self._write_pools(subject, plan, pools)
        if subject.generator.status != plan.status:
            self._record(Kind.GENERATOR, await self._kube.write_generator_status(subject.generator, plan.status))
        if refused:
            raise refused[0]

    async def _write_pools(
        self, subject: GeneratorSubject, plan: GeneratorPlan, pools: dict[str, Pool]
    ) -> list[SinkError]:
        """Remove, create, correct; what is refused for one pool holds up no other. Returns the refusals."""
        refused: list[SinkError] = []
        for write in [
            *(partial(self._remove_pool, pool) for pool in plan.remove),
            *(partial(self._create_pool, subject.generator, name, spec) for name, spec in plan.create.items()),
            *(partial(self._correct_pool, pools[name], spec) for name, spec in plan.correct.items()),
        ]:
            try:
                await write()
            except (NotLeader, Fenced):
                raise
            except SinkError as error:
                if isinstance(error, Stale):
                    await self._refresh(error.kind, error.name, None)
                refused.append(error)
        return refused

    async def _remove_pool(self, pool: Pool) -> None:
        await self._kube.delete_pool(pool)
        self._mark(self._state.forget(Kind.POOL, pool.meta.name, pool.meta.uid))

    async def _create_pool(self, generator: Generator, name: str, spec: PoolSpec) -> None:
        self._mark(self._record(Kind.POOL, await self._kube.create_pool(generator, name, spec)))

    async def _correct_pool(self, pool: Pool, spec: PoolSpec) -> None:
        log.info("a generated pool was edited; putting it right", pool=pool.meta.name)
        self._mark(self._record(Kind.POOL, await self._kube.correct_pool(pool, spec)))

    def _record(self, kind: Kind, written: Any) -> set[Key]:
        """Take in what was stored, so that its own echo marks nothing."""
        seen = decode(kind, written) if written else None
        if seen is None or isinstance(seen, Rejection):
            return set()
        return self._state.observe(seen, self._clock())


def _pool_image(pool: Pool, plan: PoolPlan) -> PoolImage:
    made = pool.spec.generated
    return PoolImage(
        name=pool.meta.name,
        uid=pool.meta.uid,
        generator=made.by if made else None,
        key=made.key if made else None,
        ready=frozenset(node for node, state in plan.members.items() if state == "Ready"),
        suspect=frozenset(node for node, state in plan.members.items() if state == "Suspect"),
        draining=frozenset(node for node, state in plan.members.items() if state == "Draining"),
    )
