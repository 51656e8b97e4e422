"""Reconciling of one generator: its pools and status (requirement D5). Must not decide or start a task."""

from functools import partial
from typing import Final

from hotpool.api.generator import GeneratorStatus
from hotpool.api.pool import PoolSpec
from hotpool.controllers.context import ROUND_SECONDS, ControllerContext
from hotpool.controllers.result import Result
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.model import Generator, Kind, Pool
from hotpool.core.planning.generator_plan import GeneratorPlan, plan_generator
from hotpool.errors import FencedError, NotLeaderError, StaleError, WriteError

PLAN_IDLE_FACTOR: Final = 9.0
"""Pause between two plans of a generator, as a multiple of the duration of the plan."""


class GeneratorController:
    """Reconciler of generators."""

    def __init__(self, context: ControllerContext) -> None:
        self._context = context
        self._next_plan: dict[str, float] = {}
        self._next_status: dict[str, float] = {}

    def reset_pacing(self, name: str) -> None:
        """Allow the next status write at once, after a write was based on a stale object."""
        self._next_status.pop(name, None)

    async def reconcile(self, name: str) -> Result:
        """Plan (rarely if that is slow), write pools, write status."""
        entry = self._context.cache.generators.get(name)
        if entry is None:
            self._next_status.pop(name, None)
            self._next_plan.pop(name, None)
            self._context.recorder.forget(Kind.GENERATOR, name)
            return Result()
        if not entry.matched:
            return Result(postponed=True)
        started, allowed = self._context.clock(), self._next_plan.get(name, 0.0)
        if started < allowed:
            return Result(requeue_at=allowed, postponed=True)
        pools = dict(self._context.cache.owners.pools_of(entry.generator.meta.uid))
        cache = self._context.cache
        plan = plan_generator(
            entry,
            pools,
            cache.pools,
            started,
            self._context.clock.timestamp(),
            declared=cache.matches.declared.by_type,
            types=cache.matches.known_types,
        )
        self._next_plan[name] = self._context.clock() + PLAN_IDLE_FACTOR * (self._context.clock() - started)
        self._context.recorder.begin_pool_writes(entry.generator, plan.create, pools)
        errors = await self._write_pools(entry, plan, pools)
        status_at = await self._write_status(name, entry.generator, plan.status)
        requeue_at = min((at for at in (plan.recheck_at, status_at) if at is not None), default=None)
        return Result(requeue_at=requeue_at, error=errors[0] if errors else None)

    async def _write_status(self, name: str, generator: Generator, status: GeneratorStatus) -> float | None:
        """Write a changed status. Return when to write it if the rate limit postpones it, else None."""
        if generator.status == status:
            return None
        now, allowed = self._context.clock(), self._next_status.get(name, 0.0)
        if now < allowed:
            return allowed
        self._next_status[name] = now + ROUND_SECONDS
        self._context.apply_response(Kind.GENERATOR, await self._context.kube.write_generator_status(generator, status))
        self._context.recorder.generator_status(generator, status)
        return None

    async def _write_pools(
        self, entry: GeneratorEntry, plan: GeneratorPlan, pools: dict[str, Pool]
    ) -> list[WriteError]:
        """Delete, create and correct pools. Return the errors: a failed write of one pool does not stop the others."""
        rejections: list[WriteError] = []
        for write in [
            *(partial(self._remove_pool, entry.generator, pool) for pool in plan.remove),
            *(partial(self._create_pool, entry.generator, name, spec) for name, spec in plan.create.items()),
            *(partial(self._correct_pool, entry.generator, pools[name], spec) for name, spec in plan.correct.items()),
        ]:
            await self._context.clock.pace()
            if not self._context.exists(Kind.GENERATOR, entry.generator.meta):
                break  # deleted meanwhile: its pools would have no owner
            try:
                await write()
            except (NotLeaderError, FencedError):
                raise
            except WriteError as error:
                if isinstance(error, StaleError):
                    await self._context.refresh(error.kind, error.name)
                rejections.append(error)
        return rejections

    async def _remove_pool(self, generator: Generator, pool: Pool) -> None:
        with self._context.recorder.pool_write(generator, pool.meta.name, pool.spec, None):
            await self._context.kube.delete(Kind.POOL, pool.meta)
        self._context.dirty.update(self._context.cache.delete(Kind.POOL, pool.meta.name, pool.meta.uid))

    async def _create_pool(self, generator: Generator, name: str, spec: PoolSpec) -> None:
        with self._context.recorder.pool_write(generator, name, None, spec):
            created = await self._context.kube.create_pool(generator, name, spec)
        self._context.apply_response(Kind.POOL, created)

    async def _correct_pool(self, generator: Generator, pool: Pool, spec: PoolSpec) -> None:
        with self._context.recorder.pool_write(generator, pool.meta.name, pool.spec, spec):
            corrected = await self._context.kube.correct_pool(pool, spec)
        self._context.apply_response(Kind.POOL, corrected)
