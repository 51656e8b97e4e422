"""A generator, from what nodes offer to its pools and its status (requirement D5).

It holds the pace of a generator's plans and writes; it decides nothing and starts no task of its own.
"""

from functools import partial
from typing import Final

from hotpool.api.generator import GeneratorStatus
from hotpool.api.pool import PoolSpec
from hotpool.controllers.context import ROUND_SECONDS, ControllerContext
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.model import Generator, Key, Kind, Pool
from hotpool.core.planning.generator_plan import GeneratorPlan, plan_generator
from hotpool.errors import FencedError, NotLeaderError, StaleError, WriteError

PLAN_IDLE_FACTOR: Final = 9.0
"""A generator rests for this many times as long as its plan took."""


class GeneratorController:
    """What is done for one generator."""

    def __init__(self, fleet: ControllerContext) -> None:
        self._fleet = fleet
        self._next_plan: dict[Key, float] = {}
        self._next_status: dict[Key, float] = {}

    def reset_pacing(self, key: Key) -> None:
        """What was written built on something stale: the status may be written at once."""
        self._next_status.pop(key, None)

    async def reconcile(self, key: Key) -> bool:
        """Pools at once; a plan that takes long comes less often, and status is written at most once in a second."""
        subject = self._fleet.cache.generators.get(key.name)
        if subject is None:
            self._next_status.pop(key, None)
            self._next_plan.pop(key, None)
            self._fleet.recorder.forget(Kind.GENERATOR, key.name)
            return True
        began, allowed = self._fleet.clock(), self._next_plan.get(key, 0.0)
        if began < allowed:
            self._fleet.mark([key], allowed)
            return False
        pools = dict(self._fleet.cache.owners.of(subject.generator.meta.uid))
        plan = plan_generator(subject, pools, self._fleet.cache.pools, began, self._fleet.clock.timestamp())
        self._next_plan[key] = self._fleet.clock() + PLAN_IDLE_FACTOR * (self._fleet.clock() - began)
        if plan.recheck_at is not None:
            self._fleet.mark([key], plan.recheck_at)
        self._fleet.recorder.begin_pool_writes(subject.generator, plan.create, pools)
        refused = await self._write_pools(subject, plan, pools)
        settled = await self._write_generator_status(key, subject.generator, plan.status)
        if refused:
            raise refused[0]
        return settled

    async def _write_generator_status(self, key: Key, generator: Generator, status: GeneratorStatus) -> bool:
        """False: put off."""
        if generator.status == status:
            return True
        now, allowed = self._fleet.clock(), self._next_status.get(key, 0.0)
        if now < allowed:
            self._fleet.mark([key], allowed)
            return False
        self._next_status[key] = now + ROUND_SECONDS
        self._fleet.apply_response(Kind.GENERATOR, await self._fleet.kube.write_generator_status(generator, status))
        self._fleet.recorder.generator_status(generator, status)
        return True

    async def _write_pools(
        self, subject: GeneratorEntry, plan: GeneratorPlan, pools: dict[str, Pool]
    ) -> list[WriteError]:
        """Remove, create, correct; what is refused for one pool holds up no other. Returns the refusals."""
        refused: list[WriteError] = []
        for write in [
            *(partial(self._remove_pool, subject.generator, pool) for pool in plan.remove),
            *(partial(self._create_pool, subject.generator, name, spec) for name, spec in plan.create.items()),
            *(partial(self._correct_pool, subject.generator, pools[name], spec) for name, spec in plan.correct.items()),
        ]:
            try:
                await write()
            except (NotLeaderError, FencedError):
                raise
            except WriteError as error:
                if isinstance(error, StaleError):
                    await self._fleet.refresh(error.kind, error.name)
                refused.append(error)
        return refused

    async def _remove_pool(self, generator: Generator, pool: Pool) -> None:
        with self._fleet.recorder.pool_write(generator, pool.meta.name, pool.spec, None):
            await self._fleet.kube.delete_pool(pool)
        self._fleet.mark(self._fleet.cache.delete(Kind.POOL, pool.meta.name, pool.meta.uid), None)

    async def _create_pool(self, generator: Generator, name: str, spec: PoolSpec) -> None:
        with self._fleet.recorder.pool_write(generator, name, None, spec):
            created = await self._fleet.kube.create_pool(generator, name, spec)
        self._fleet.mark(self._fleet.apply_response(Kind.POOL, created), None)

    async def _correct_pool(self, generator: Generator, pool: Pool, spec: PoolSpec) -> None:
        with self._fleet.recorder.pool_write(generator, pool.meta.name, pool.spec, spec):
            corrected = await self._fleet.kube.correct_pool(pool, spec)
        self._fleet.mark(self._fleet.apply_response(Kind.POOL, corrected), None)
