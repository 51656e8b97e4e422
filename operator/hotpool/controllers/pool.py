"""Reconciling of one pool in Kubernetes: plan, diff, write. Must not decide about membership or start a task."""

from collections.abc import Mapping
from typing import Any, Final

from hotpool.api.pool import PoolStatus
from hotpool.controllers.context import ROUND_SECONDS, ControllerContext
from hotpool.controllers.result import Direction, Result
from hotpool.core.model import Kind, Member, Pool, Slice
from hotpool.core.planning.diff import DeleteSlice, SliceWrite, diff_slices, status_differs, status_is_urgent
from hotpool.core.planning.pool_plan import PoolPlan, plan_pool
from hotpool.core.pool_membership import PoolMembership
from hotpool.errors import RetryableError

COUNTS_ONLY_SECONDS: Final = 10.0
"""Shortest time between two writes of a status in which only counts by reason differ."""
_MAX_DELETIONS: Final = 50
"""Slices of one pool deleted per round: thousands that other clients created must not delay its members."""


class PoolController:
    """Reconciler of pools."""

    def __init__(self, context: ControllerContext) -> None:
        self._context = context
        self._next_round: dict[str, float] = {}
        self._next_counts_only: dict[str, float] = {}

    def reset_pacing(self, name: str) -> None:
        """Allow the next round at once, after a write was based on a stale object."""
        self._next_round.pop(name, None)

    async def reconcile(self, name: str) -> Result:
        """Write slices, then status, in at most one round per second, the first at once (requirement D3)."""
        membership = self._context.cache.pools.get(name)
        if membership is None:
            self._next_round.pop(name, None)
            self._next_counts_only.pop(name, None)
            self._context.recorder.forget(Kind.POOL, name)
            await self._delete_slices(name)
            return Result()
        if not membership.matched:
            return Result(postponed=True)
        now = self._context.clock()
        if not membership.urgent and now < (allowed := self._next_counts_only.get(name, 0.0)):
            # Else each new node would cause a plan of every pool of the fleet, and changes of membership would wait.
            return Result(requeue_at=allowed, postponed=True)
        stored = self._context.cache.slices.get(name, {})
        cache, timestamp = self._context.cache, self._context.clock.timestamp()
        plan = plan_pool(
            membership,
            stored,
            cache.matches.known_types,
            now,
            timestamp,
            declared=cache.matches.declared.by_type,
            ageing=cache.ageing,
            service_refusal=self._context.service_refusal,
        )
        membership.record_plan(plan.retained)
        writes = diff_slices(membership.pool, stored, plan.slices)
        urgent = bool(writes) or status_is_urgent(membership.pool.status, plan.status)
        allowed = (self._next_round if urgent else self._next_counts_only).get(name, 0.0)
        if now < allowed and (writes or status_differs(membership.pool.status, plan.status)):
            membership.dirty.status = urgent
            return Result(requeue_at=allowed, postponed=True)
        change = _direction(stored, plan.slices) if writes else None
        dirty = membership.dirty.snapshot()
        try:
            complete = await self._write(membership, plan, writes)
        except BaseException:
            membership.dirty.restore(dirty)
            membership.dirty.slices = True  # a merge may be half written, with nodes that are not dirty
            raise
        if not complete or plan.retained is None:
            membership.dirty.restore(dirty, status_current=complete)
        requeue = (plan.recheck_at, None if complete else self._next_round[name])
        return Result(requeue_at=min((at for at in requeue if at is not None), default=None), change=change)

    async def _delete_slices(self, name: str) -> None:
        """Delete slices of a deleted pool that have no owner: the garbage collector ignores them (requirement D11)."""
        orphans = [item for item in self._context.cache.slices.get(name, {}).values() if item.owner is None]
        if not orphans:
            return
        if not await self._context.refresh(Kind.POOL, name):
            if name not in self._context.cache.pools:
                raise RetryableError(
                    f"slices of {name} have no owner, and the pool cannot be read; kept until it can be"
                )
            return
        for item in orphans:
            if not any(pool in self._context.cache.pools for pool in item.pools):
                await self._context.kube.delete(Kind.SLICE, item.meta)
                self._context.dirty.update(self._context.cache.delete(Kind.SLICE, item.meta.name, item.meta.uid))

    async def _write(self, membership: PoolMembership, plan: PoolPlan, writes: list[SliceWrite]) -> bool:
        """Write the slices, then the status. Return False if not all was written."""
        pool, name, now = membership.pool, membership.pool.meta.name, self._context.clock()
        membership.merge_at = plan.merge_at
        if not writes and not status_differs(pool.status, plan.status):
            return True
        self._next_round[name] = now + ROUND_SECONDS
        self._next_counts_only[name] = now + COUNTS_ONLY_SECONDS
        surplus = [write for write in writes if isinstance(write, DeleteSlice)][_MAX_DELETIONS:]
        with self._context.recorder.slice_round(pool):
            for write in writes[: len(writes) - len(surplus)]:
                await self._context.clock.pace()
                if not self._context.exists(Kind.POOL, pool.meta):
                    return False  # a pool created again under the name must not get the slices of the former one
                with self._context.recorder.slice_write(pool, write):
                    self._record_slice(write, await self._context.kube.write_slice(pool, write))
        await self._write_status(pool, plan.status)
        return not surplus

    async def _write_status(self, pool: Pool, status: PoolStatus) -> None:
        if status_differs(pool.status, status):
            self._context.apply_response(Kind.POOL, await self._context.kube.write_pool_status(pool, status))
            self._context.recorder.pool_status(pool, status)

    def _record_slice(self, write: SliceWrite, written: Any) -> None:
        """Store the response in the cache, and the deletion, which is no reason to reconcile the pool again."""
        self._context.apply_response(Kind.SLICE, written)
        if isinstance(write, DeleteSlice):
            self._context.dirty.update(self._context.cache.apply_deletion(write.slice))


def _direction(stored: Mapping[str, Slice], planned: Mapping[str, tuple[Member, ...]]) -> Direction:
    """Return the direction of a change: a withdrawal if a Ready member leaves, or changes its state."""
    before, after = set[str](), set[str]()
    for name in stored.keys() | planned.keys():
        held, wanted = stored[name].members if name in stored else (), planned.get(name, ())
        if held is not wanted and held != wanted:
            before.update(member.node for member in held if member.state == "Ready")
            after.update(member.node for member in wanted if member.state == "Ready")
    return "gain" if before <= after else "withdrawal"
