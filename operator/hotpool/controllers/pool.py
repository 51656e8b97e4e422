"""Reconciling of one pool: plan, diff, write. Must not decide about membership or start a task."""

import asyncio
from typing import Any, Final

from hotpool.api.pool import PoolStatus
from hotpool.controllers.context import ROUND_SECONDS, ControllerContext
from hotpool.controllers.resync import Resync
from hotpool.core.model import Key, Kind, Pool
from hotpool.core.planning.diff import DeleteSlice, SliceWrite, diff_slices, status_differs, status_is_urgent
from hotpool.core.planning.pool_plan import PoolPlan, plan_pool
from hotpool.core.pool_membership import PoolMembership
from hotpool.errors import RetryableError
from hotpool.projection.documents import PoolDocument

COUNTS_ONLY_SECONDS: Final = 10.0
"""Shortest time between two writes of a status in which only counts by reason differ."""
_MAX_DELETIONS: Final = 50
"""Slices of one pool deleted per round: thousands that other clients created must not delay its members."""


class PoolController:
    """Reconciler of pools."""

    def __init__(self, context: ControllerContext, resync: Resync) -> None:
        self._context = context
        self._resync = resync
        self._next_round: dict[Key, float] = {}
        self._next_counts_only: dict[Key, float] = {}

    def earliest(self, key: Key, now: float) -> float:
        """Return when to plan a dirty pool (monotonic seconds). If only counts changed, it waits for their next write.

        Else each new node would cause a plan of every pool of the fleet, and changes of membership would wait.
        """
        membership = self._context.cache.pools.get(key.name)
        return now if membership is None or membership.urgent else max(now, self._next_counts_only.get(key, 0.0))

    def reset_pacing(self, key: Key) -> None:
        """Allow the next round at once, after a write was based on a stale object."""
        self._next_round.pop(key, None)

    async def reconcile(self, key: Key) -> bool:
        """Write to Redis and Kubernetes. Return False if the rate limit postponed a write."""
        membership = self._context.cache.pools.get(key.name)
        if membership is None:
            self._next_round.pop(key, None)
            self._next_counts_only.pop(key, None)
            self._context.recorder.forget(Kind.POOL, key.name)
            self._context.latency.forget(key.name)
            if self._context.publisher:
                await self._context.publisher.delete_pool(key.name)
            await self._delete_slices(key.name)
            return True
        now = self._context.clock()
        stored = self._context.cache.slices.get(key.name, {})
        plan = plan_pool(membership, stored, self._context.cache.known_types, now, self._context.clock.timestamp())
        membership.record_plan(plan.retained)
        self._context.latency.planned(key.name, stored, plan.slices, now)
        if plan.recheck_at is not None:
            self._context.mark([key], plan.recheck_at)
        dirty = membership.take_dirty()
        results = await asyncio.gather(
            self._publish(membership.pool, plan), self._write(key, membership, plan), return_exceptions=True
        )
        if results[1] is not True or plan.retained is None:
            membership.restore_dirty(dirty, status_current=results[1] in {True, None})
        if isinstance(results[1], BaseException):
            membership.slices_dirty = True  # a merge may be half written, with nodes that are not dirty
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results[1] is True

    async def _delete_slices(self, name: str) -> None:
        """Delete slices of a deleted pool that have no owner: the garbage collector ignores them (requirement D11)."""
        orphans = [item for item in self._context.cache.slices.get(name, {}).values() if item.owner is None]
        if not orphans:
            return
        if not await self._resync.refresh(Kind.POOL, name):
            if name not in self._context.cache.pools:
                raise RetryableError(
                    f"slices of {name} have no owner, and the pool cannot be read; kept until it can be"
                )
            return
        for item in orphans:
            if not any(pool in self._context.cache.pools for pool in item.pools):
                await self._context.kube.delete_slice(item.meta)
                self._context.cache.delete(Kind.SLICE, item.meta.name, item.meta.uid)

    async def _publish(self, pool: Pool, plan: PoolPlan) -> None:
        publisher, accepted = self._context.publisher, None
        if publisher:
            accepted = await publisher.publish_pool(_pool_document(pool, plan, publisher.published(pool.meta.name)))
        self._context.latency.published(pool.meta.name, self._context.clock(), accepted=accepted)

    async def _write(self, key: Key, membership: PoolMembership, plan: PoolPlan) -> bool | None:
        """Write slices, then status, in at most one round per second, the first at once (requirement D3).

        Return True if all is written, None if only a change of counts by reason was postponed, else False.
        """
        pool = membership.pool
        writes = diff_slices(pool, self._context.cache.slices.get(key.name, {}), plan.slices)
        if not writes and not status_differs(pool.status, plan.status):
            membership.merge_at = plan.merge_at
            return True
        now = self._context.clock()
        urgent = bool(writes) or status_is_urgent(pool.status, plan.status)
        allowed = (self._next_round if urgent else self._next_counts_only).get(key, 0.0)
        if now < allowed:
            self._context.mark([key], allowed)
            return False if urgent else None
        membership.merge_at = plan.merge_at
        self._next_round[key] = now + ROUND_SECONDS
        self._next_counts_only[key] = now + COUNTS_ONLY_SECONDS
        surplus = [write for write in writes if isinstance(write, DeleteSlice)][_MAX_DELETIONS:]
        with self._context.recorder.slice_round(pool):
            for write in writes[: len(writes) - len(surplus)]:
                with self._context.recorder.slice_write(pool, write):
                    self._record_slice(membership, write, await self._context.kube.write_slice(pool, write))
        self._context.latency.stored(key.name, self._context.clock())
        await self._write_status(membership, pool, plan.status)
        if surplus:
            self._context.mark([key], self._next_round[key])
        return not surplus

    async def _write_status(self, membership: PoolMembership, pool: Pool, status: PoolStatus) -> None:
        if status_differs(pool.status, status):
            written = await self._context.kube.write_pool_status(pool, status)
            status_dirty = membership.status_dirty
            affected = self._context.apply_response(Kind.POOL, written)
            membership.status_dirty = status_dirty
            # The pool may be empty now.
            self._context.mark({key for key in affected if key.kind is Kind.GENERATOR}, None)
            self._context.recorder.pool_status(pool, status)

    def _record_slice(self, membership: PoolMembership, write: SliceWrite, written: Any) -> None:
        """Store the response in the cache, and keep the dirty flags: our own write is no reason to reconcile."""
        slices_dirty, status_dirty = membership.slices_dirty, membership.status_dirty
        self._context.apply_response(Kind.SLICE, written)
        if isinstance(write, DeleteSlice):
            self._context.cache.delete(Kind.SLICE, write.slice.meta.name, write.slice.meta.uid)
        membership.slices_dirty, membership.status_dirty = slices_dirty, status_dirty


def _pool_document(pool: Pool, plan: PoolPlan, former: PoolDocument | None) -> PoolDocument:
    generated = pool.spec.generated
    ready = plan.retained is not None and plan.status.ready_members == plan.status.members
    others = {} if ready else {node: state for node, state in plan.members.items() if state != "Ready"}
    return PoolDocument(
        name=pool.meta.name,
        uid=pool.meta.uid,
        generator=generated.by if generated else None,
        key=generated.key if generated else None,
        ready=frozenset(plan.members.keys() - others if others else plan.members),
        suspect=frozenset(node for node, state in others.items() if state == "Suspect"),
        draining=frozenset(node for node, state in others.items() if state == "Draining"),
        former=former,
    )
