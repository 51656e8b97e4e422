"""A pool, from its view to both sinks and back: plan, diff, apply, record.

It holds the pace of a pool's writes; it decides nothing about membership and starts no task of its own.
"""

import asyncio
from typing import Any, Final

from hotpool.api.pool import PoolStatus
from hotpool.controllers.context import ROUND_SECONDS, ControllerContext
from hotpool.core.model import Key, Kind, Pool
from hotpool.core.planning.diff import DeleteSlice, SliceWrite, diff_slices, status_differs, status_is_urgent
from hotpool.core.planning.pool_plan import PoolPlan, plan_pool
from hotpool.core.pool_membership import PoolMembership
from hotpool.errors import RetryableError
from hotpool.projection.documents import PoolDocument

SLOW_SECONDS: Final = 10.0
"""Counts by reason alone are written at most once in this time."""
_DELETIONS_AT_ONCE: Final = 50
"""Slices of one pool deleted in one round: thousands that others made must not keep its members waiting."""


class PoolController:
    """What is done for one pool."""

    def __init__(self, fleet: ControllerContext) -> None:
        self._fleet = fleet
        self._next_round: dict[Key, float] = {}
        self._next_slow: dict[Key, float] = {}

    def earliest(self, key: Key, now: float) -> float:
        """When to plan what became dirty: a pool of which only counts by reason changed waits for its next slow turn.

        Else each node that appears would have every pool of the fleet planned at once, and memberships would wait.
        """
        subject = self._fleet.cache.pools.get(key.name)
        return now if subject is None or subject.urgent else max(now, self._next_slow.get(key, 0.0))

    def reset_pacing(self, key: Key) -> None:
        """What was written built on something stale: the next round is due at once."""
        self._next_round.pop(key, None)

    async def reconcile(self, key: Key) -> bool:
        """Whether the pool is settled; False where its writes were put off by the pace, which proves nothing."""
        subject = self._fleet.cache.pools.get(key.name)
        if subject is None:
            self._next_round.pop(key, None)
            self._next_slow.pop(key, None)
            self._fleet.recorder.forget(Kind.POOL, key.name)
            self._fleet.latency.forget(key.name)
            if self._fleet.publisher:
                await self._fleet.publisher.delete_pool(key.name)
            await self._delete_slices(key.name)
            return True
        now = self._fleet.clock()
        applied = self._fleet.cache.slices.get(key.name, {})
        plan = plan_pool(subject, applied, self._fleet.cache.known_types, now, self._fleet.clock.timestamp())
        subject.planned(plan.retained, plan.merge_at)
        self._fleet.latency.planned(key.name, applied, plan.slices, now)
        if plan.recheck_at is not None:
            self._fleet.mark([key], plan.recheck_at)
        taken = subject.take_dirty()
        results = await asyncio.gather(
            self._project_pool(subject.pool, plan), self._write_pool(key, subject, plan), return_exceptions=True
        )
        if results[1] is not True or plan.retained is None:
            subject.restore_dirty(taken, planned=results[1] in {True, None})
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results[1] is True

    async def _delete_slices(self, name: str) -> None:
        """Slices of a pool that is gone and that nobody owns: no garbage collector finds them (requirement D11)."""
        orphans = [item for item in self._fleet.cache.slices.get(name, {}).values() if item.owner is None]
        if not orphans:
            return
        if not await self._fleet.refresh(Kind.POOL, name):
            if name not in self._fleet.cache.pools:
                raise RetryableError(f"slices of {name} have no owner, and whether the pool is gone cannot be read")
            return
        for item in orphans:
            if not any(pool in self._fleet.cache.pools for pool in item.pools):
                await self._fleet.kube.delete_slice(item.meta)
                self._fleet.cache.delete(Kind.SLICE, item.meta.name, item.meta.uid)

    async def _project_pool(self, pool: Pool, plan: PoolPlan) -> None:
        accepted = None
        if self._fleet.publisher:
            accepted = await self._fleet.publisher.publish_pool(
                _pool_document(pool, plan, self._fleet.publisher.published(pool.meta.name))
            )
        self._fleet.latency.published(pool.meta.name, self._fleet.clock(), accepted=accepted)

    async def _write_pool(self, key: Key, subject: PoolMembership, plan: PoolPlan) -> bool | None:
        """Slices, then status; at most one round in a second, the first at once (requirement D3).

        False: put off; None: only its counts by reason were.
        """
        pool = subject.pool
        writes = diff_slices(pool, self._fleet.cache.slices.get(key.name, {}), plan.slices)
        if not writes and not status_differs(pool.status, plan.status):
            return True
        now = self._fleet.clock()
        urgent = bool(writes) or status_is_urgent(pool.status, plan.status)
        allowed = (self._next_round if urgent else self._next_slow).get(key, 0.0)
        if now < allowed:
            self._fleet.mark([key], allowed)
            return False if urgent else None
        self._next_round[key] = now + ROUND_SECONDS
        self._next_slow[key] = now + SLOW_SECONDS
        surplus = [write for write in writes if isinstance(write, DeleteSlice)][_DELETIONS_AT_ONCE:]
        with self._fleet.recorder.slice_round(pool):
            for write in writes[: len(writes) - len(surplus)]:
                with self._fleet.recorder.slice_write(pool, write):
                    self._record_slice(subject, write, await self._fleet.kube.write_slice(pool, write))
        self._fleet.latency.stored(key.name, self._fleet.clock())
        await self._write_pool_status(subject, pool, plan.status)
        if surplus:
            self._fleet.mark([key], self._next_round[key])
        return not surplus

    async def _write_pool_status(self, subject: PoolMembership, pool: Pool, status: PoolStatus) -> None:
        if status_differs(pool.status, status):
            written = await self._fleet.kube.write_pool_status(pool, status)
            moved = subject.status_dirty
            touched = self._fleet.apply_response(Kind.POOL, written)
            subject.status_dirty = moved
            self._fleet.mark({key for key in touched if key.kind is Kind.GENERATOR}, None)  # the pool may be empty now
            self._fleet.recorder.pool_status(pool, status)

    def _record_slice(self, subject: PoolMembership, write: SliceWrite, written: Any) -> None:
        """Our own write tells nothing new about the slices of the pool."""
        foreign, moved = subject.slices_dirty, subject.status_dirty
        self._fleet.apply_response(Kind.SLICE, written)
        if isinstance(write, DeleteSlice):
            self._fleet.cache.delete(Kind.SLICE, write.slice.meta.name, write.slice.meta.uid)
        subject.slices_dirty, subject.status_dirty = foreign, moved


def _pool_document(pool: Pool, plan: PoolPlan, former: PoolDocument | None) -> PoolDocument:
    made = pool.spec.generated
    ready = plan.retained is not None and plan.status.ready_members == plan.status.members
    others = {} if ready else {node: state for node, state in plan.members.items() if state != "Ready"}
    return PoolDocument(
        name=pool.meta.name,
        uid=pool.meta.uid,
        generator=made.by if made else None,
        key=made.key if made else None,
        ready=frozenset(plan.members.keys() - others if others else plan.members),
        suspect=frozenset(node for node, state in others.items() if state == "Suspect"),
        draining=frozenset(node for node, state in others.items() if state == "Draining"),
        former=former,
    )
