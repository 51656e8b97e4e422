"""The phases of one key, which read as a list: view, plan, diff, apply, record (design, section 2).

Called by the reconciler, one call at a time for each key. It holds the pace of writes; it decides nothing about
membership and starts no task of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

import structlog

from hotpool.api.generator import GeneratorStatus
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.clock import Clock
from hotpool.core.diff import DeleteSlice, SliceWrite, conditions_differ, diff_slices, status_differs, status_is_urgent
from hotpool.core.generators.offers import GeneratorSubject
from hotpool.core.generators.plan import GeneratorPlan, plan_generator
from hotpool.core.model import Generator, Key, Kind, Pool
from hotpool.core.plan import NodePlan, PoolPlan, plan_node, plan_pool
from hotpool.core.record import NodeRecord
from hotpool.core.state import State
from hotpool.core.story.transitions import Transitions
from hotpool.core.subjects import PoolSubject
from hotpool.latency import Latency
from hotpool.metrics import TRANSITIONS
from hotpool.narrator import Narrator
from hotpool.projection.history import encoded
from hotpool.projection.images import NodeImage, PoolImage
from hotpool.projection.mirror import Mirror
from hotpool.sinks.errors import Fenced, NotLeader, Retryable, SinkError, Stale
from hotpool.sinks.kube import KubeSink
from hotpool.sources.decode import Rejection, decode

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 1.0
"""Slices and urgent status of one pool are written at most once in this time (behaviour D3)."""
SLOW_SECONDS: Final = 10.0
"""Counts by reason alone are written at most once in this time."""
_DELETIONS_AT_ONCE: Final = 50
"""Slices of one pool deleted in one round: thousands that others made must not keep its members waiting."""
_REST: Final = 9.0
"""A generator rests for this many times as long as its plan took."""

Mark = Callable[[Iterable[Key], float | None], None]
"""Makes keys due: at a moment (monotonic seconds), or now."""
Refresh = Callable[[Kind, str], Awaitable[bool]]
"""Reads one object anew; True where the API server says that there is none."""


class Phases:
    """What is done for one key, from the state to both sinks and back."""

    def __init__(
        self,
        state: State,
        kube: KubeSink,
        mirror: Mirror | None,
        clock: Clock,
        *,
        mark: Mark,
        refresh: Refresh,
        narrator: Narrator,
        latency: Latency,
    ) -> None:
        self._state = state
        self._kube = kube
        self._mirror = mirror
        self._clock = clock
        self._mark = mark
        self._refresh = refresh
        self._narrator = narrator
        self._latency = latency
        self._transitions = Transitions()
        self._next_round: dict[Key, float] = {}
        self._next_slow: dict[Key, float] = {}

    async def run(self, key: Key) -> bool:
        """Whether the key is settled; False where its writes were put off by the pace, which proves nothing."""
        match key.kind:
            case Kind.POOL:
                return await self._pool(key)
            case Kind.NODE:
                await self._node(key)
            case Kind.GENERATOR:
                return await self._generator(key)
            case Kind.SLICE:
                raise ValueError("a slice is reconciled with its pool")
        return True

    def earliest(self, key: Key, now: float) -> float:
        """When to plan what became dirty: a pool of which only counts by reason changed waits for its next slow turn.

        Else each node that appears would have every pool of the fleet planned at once, and memberships would wait.
        """
        subject = self._state.pools.get(key.name) if key.kind is Kind.POOL else None
        return now if subject is None or subject.urgent else max(now, self._next_slow.get(key, 0.0))

    def forget_pace(self, key: Key) -> None:
        """What was written built on something stale: the next round is due at once."""
        self._next_round.pop(key, None)

    async def _pool(self, key: Key) -> bool:
        subject = self._state.pools.get(key.name)
        if subject is None:
            self._next_round.pop(key, None)
            self._next_slow.pop(key, None)
            self._narrator.forget(Kind.POOL, key.name)
            self._latency.forget(key.name)
            if self._mirror:
                await self._mirror.no_pool(key.name)
            await self._sweep(key.name)
            return True
        now = self._clock()
        applied = self._state.slices.get(key.name, {})
        plan = plan_pool(subject, applied, self._state.known_types, now, self._clock.timestamp())
        subject.planned(plan.held, plan.merge_at)
        self._latency.planned(key.name, applied, plan.slices, now)
        if plan.recheck_at is not None:
            self._mark([key], plan.recheck_at)
        taken = subject.take_unsettled()
        results = await asyncio.gather(
            self._project_pool(subject.pool, plan), self._write_pool(key, subject, plan), return_exceptions=True
        )
        if results[1] is not True or plan.held is None:
            subject.give_back(taken, planned=results[1] in {True, None})
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results[1] is True

    async def _sweep(self, name: str) -> None:
        """Slices of a pool that is gone and that nobody owns: no garbage collector finds them (behaviour D11)."""
        orphans = [item for item in self._state.slices.get(name, {}).values() if item.owner is None]
        if not orphans:
            return
        if not await self._refresh(Kind.POOL, name):
            if name not in self._state.pools:
                raise Retryable(f"slices of {name} have no owner, and whether the pool is gone cannot be read")
            return
        for item in orphans:
            if not any(pool in self._state.pools for pool in item.pools):
                await self._kube.delete_slice(item.meta)
                self._state.forget(Kind.SLICE, item.meta.name, item.meta.uid)

    async def _project_pool(self, pool: Pool, plan: PoolPlan) -> None:
        accepted = None
        if self._mirror:
            accepted = await self._mirror.pool(_pool_image(pool, plan, self._mirror.wanted(pool.meta.name)))
        self._latency.projected(pool.meta.name, self._clock(), accepted=accepted)

    async def _write_pool(self, key: Key, subject: PoolSubject, plan: PoolPlan) -> bool | None:
        """Slices, then status; at most one round in a second, the first at once (behaviour D3).

        False: put off; None: only its counts by reason were.
        """
        pool = subject.pool
        writes = diff_slices(pool, self._state.slices.get(key.name, {}), plan.slices)
        if not writes and not status_differs(pool.status, plan.status):
            return True
        now = self._clock()
        urgent = bool(writes) or status_is_urgent(pool.status, plan.status)
        allowed = (self._next_round if urgent else self._next_slow).get(key, 0.0)
        if now < allowed:
            self._mark([key], allowed)
            return False if urgent else None
        self._next_round[key] = now + ROUND_SECONDS
        self._next_slow[key] = now + SLOW_SECONDS
        surplus = [write for write in writes if isinstance(write, DeleteSlice)][_DELETIONS_AT_ONCE:]
        with self._narrator.round(pool):
            for write in writes[: len(writes) - len(surplus)]:
                with self._narrator.slice_write(pool, write):
                    self._record_slice(subject, write, await self._kube.write_slice(pool, write))
        self._latency.stored(key.name, self._clock())
        await self._write_pool_status(subject, pool, plan.status)
        if surplus:
            self._mark([key], self._next_round[key])
        return not surplus

    async def _write_pool_status(self, subject: PoolSubject, pool: Pool, status: PoolStatus) -> None:
        if status_differs(pool.status, status):
            written = await self._kube.write_pool_status(pool, status)
            moved = subject.moved
            touched = self._record(Kind.POOL, written)
            subject.moved = moved
            self._mark({key for key in touched if key.kind is Kind.GENERATOR}, None)  # the pool may be empty now
            self._narrator.pool_status(pool, status)

    def _record_slice(self, subject: PoolSubject, write: SliceWrite, written: Any) -> None:
        """Our own write tells nothing new about the slices of the pool."""
        foreign, moved = subject.foreign, subject.moved
        self._record(Kind.SLICE, written)
        if isinstance(write, DeleteSlice):
            self._state.forget(Kind.SLICE, write.slice.meta.name, write.slice.meta.uid)
        subject.foreign, subject.moved = foreign, moved

    async def _node(self, key: Key) -> None:
        record = self._state.nodes.get(key.name)
        plan = plan_node(record.view, self._clock.timestamp()) if record else None
        if self._mirror:
            await self._project_node(self._mirror, key.name, record, plan)
        if record and plan and conditions_differ(record.view.node.conditions, plan.conditions):
            node = record.view.node
            written = await self._kube.write_node_conditions(node.meta, plan.conditions)
            TRANSITIONS.labels(plan.conditions[0].reason).inc()
            self._narrator.node_conditions(node, plan.conditions)
            self._mark(self._record(Kind.NODE, written), None)  # it may hold a report that no watch has brought yet
        if record and record.view.expired:
            await self._clean_up(key.name, record)
        elif record is None and key.name in self._state.leases.abandoned:
            await self._delete_lease(key.name)

    async def _project_node(self, mirror: Mirror, name: str, record: NodeRecord | None, plan: NodePlan | None) -> None:
        """What Redis shall say of a node, and the last things that changed about it (behaviour E3, F2)."""
        if record is None or plan is None or record.view.expired:
            self._transitions.forget(name)
            await mirror.no_node(name)
            return
        node, ready = record.view.node, plan.conditions[0]
        stored = node.conditions.get("Ready")
        types = node.report.types if node.report else {}
        step = self._transitions.step(
            name, ready.reason, types, stored.reason if stored else None, self._clock.timestamp()
        )
        happened = encoded(step) if step else None
        if plan.types is None:
            await mirror.hide_node(name, happened)
        else:
            shown = tuple((type_, t.ready, t.reason, t.services) for type_, t in sorted(plan.types.items()))
            await mirror.node(NodeImage(name, shown), happened)

    async def _clean_up(self, name: str, record: NodeRecord) -> None:
        """The node was silent for 600 s: its Lease goes, and its resource if people wrote nothing into it (C4)."""
        node = record.view.node
        if await self._delete_lease(name):
            self._narrator.cleaned_up(node.meta, "its Lease was")
        if node.untouched and record.view.expired:  # it may have beaten meanwhile
            await self._kube.delete_node(node.meta)
            self._narrator.cleaned_up(node.meta, "its Lease and its NodeCapability were")
            self._mark(self._state.forget(Kind.NODE, name, node.meta.uid), None)

    async def _delete_lease(self, name: str) -> bool:
        """Whether there was one, as it was last seen; one renewed meanwhile stays."""
        lease = self._state.leases.get(name)
        if not lease or not lease.uid:
            return False
        await self._kube.delete_lease(lease)
        self._state.leases.deleted(lease)
        return True

    async def _generator(self, key: Key) -> bool:
        """Pools at once; a plan that takes long comes less often, and status is written at most once in a second."""
        subject = self._state.generators.get(key.name)
        if subject is None:
            self._next_round.pop(key, None)
            self._next_slow.pop(key, None)
            self._narrator.forget(Kind.GENERATOR, key.name)
            return True
        began, allowed = self._clock(), self._next_slow.get(key, 0.0)
        if began < allowed:
            self._mark([key], allowed)
            return False
        pools = dict(self._state.owned.of(subject.generator.meta.uid))
        plan = plan_generator(subject, pools, self._state.pools, began, self._clock.timestamp())
        self._next_slow[key] = self._clock() + _REST * (self._clock() - began)
        if plan.recheck_at is not None:
            self._mark([key], plan.recheck_at)
        self._narrator.generates(subject.generator, plan.create, pools)
        refused = await self._write_pools(subject, plan, pools)
        settled = await self._write_generator_status(key, subject.generator, plan.status)
        if refused:
            raise refused[0]
        return settled

    async def _write_generator_status(self, key: Key, generator: Generator, status: GeneratorStatus) -> bool:
        """False: put off."""
        if generator.status == status:
            return True
        now, allowed = self._clock(), self._next_round.get(key, 0.0)
        if now < allowed:
            self._mark([key], allowed)
            return False
        self._next_round[key] = now + ROUND_SECONDS
        self._record(Kind.GENERATOR, await self._kube.write_generator_status(generator, status))
        self._narrator.generator_status(generator, status)
        return True

    async def _write_pools(
        self, subject: GeneratorSubject, plan: GeneratorPlan, pools: dict[str, Pool]
    ) -> list[SinkError]:
        """Remove, create, correct; what is refused for one pool holds up no other. Returns the refusals."""
        refused: list[SinkError] = []
        for write in [
            *(partial(self._remove_pool, subject.generator, pool) for pool in plan.remove),
            *(partial(self._create_pool, subject.generator, name, spec) for name, spec in plan.create.items()),
            *(partial(self._correct_pool, subject.generator, pools[name], spec) for name, spec in plan.correct.items()),
        ]:
            try:
                await write()
            except (NotLeader, Fenced):
                raise
            except SinkError as error:
                if isinstance(error, Stale):
                    await self._refresh(error.kind, error.name)
                refused.append(error)
        return refused

    async def _remove_pool(self, generator: Generator, pool: Pool) -> None:
        with self._narrator.pool_write(generator, pool.meta.name, pool.spec, None):
            await self._kube.delete_pool(pool)
        self._mark(self._state.forget(Kind.POOL, pool.meta.name, pool.meta.uid), None)

    async def _create_pool(self, generator: Generator, name: str, spec: PoolSpec) -> None:
        with self._narrator.pool_write(generator, name, None, spec):
            created = await self._kube.create_pool(generator, name, spec)
        self._mark(self._record(Kind.POOL, created), None)

    async def _correct_pool(self, generator: Generator, pool: Pool, spec: PoolSpec) -> None:
        with self._narrator.pool_write(generator, pool.meta.name, pool.spec, spec):
            corrected = await self._kube.correct_pool(pool, spec)
        self._mark(self._record(Kind.POOL, corrected), None)

    def _record(self, kind: Kind, written: Any) -> set[Key]:
        """Take in what was stored, so that its own echo marks nothing."""
        seen = decode(kind, written) if written else None
        if seen is None or isinstance(seen, Rejection):
            return set()
        return self._state.observe(seen, self._clock())


def _pool_image(pool: Pool, plan: PoolPlan, former: PoolImage | None) -> PoolImage:
    made = pool.spec.generated
    ready = plan.held is not None and plan.status.ready_members == plan.status.members
    others = {} if ready else {node: state for node, state in plan.members.items() if state != "Ready"}
    return PoolImage(
        name=pool.meta.name,
        uid=pool.meta.uid,
        generator=made.by if made else None,
        key=made.key if made else None,
        ready=frozenset(plan.members.keys() - others if others else plan.members),
        suspect=frozenset(node for node, state in others.items() if state == "Suspect"),
        draining=frozenset(node for node, state in others.items() if state == "Draining"),
        former=former,
    )
