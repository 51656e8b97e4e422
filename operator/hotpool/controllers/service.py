"""Reconciling of the Service of one pool: plan, diff, write (requirement D12). Must not start a task."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from hotpool.clock import Clock
from hotpool.controllers.context import ROUND_SECONDS
from hotpool.controllers.result import Result
from hotpool.controllers.resync import Resync
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Key, Kind, Meta, Pool
from hotpool.core.planning.pool_plan import plan_members
from hotpool.core.planning.service_plan import NO_SERVICE, Allows, ServicePlan, SliceDiff, plan_service
from hotpool.core.planning.service_work import ServiceWork, compare, is_ours
from hotpool.core.pool_membership import PoolMembership
from hotpool.core.service_model import (
    DesiredSlice,
    ServiceObjects,
    StoredEndpointSlice,
    StoredService,
    service_of,
)
from hotpool.core.service_names import service_name
from hotpool.errors import FencedError, NotLeaderError, RejectedError, RetryableError, StaleError
from hotpool.events.recorder import EventRecorder
from hotpool.kube.service_reader import ServiceReader
from hotpool.kube.service_writer import ServiceWriter

T = TypeVar("T")

NAME_TAKEN: Final = "ServiceNameTaken"
NAME_CHECK_SECONDS: Final = 10.0
"""Time between two looks at an object of another owner that is in the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """Parts of the operator that Services need, and what pools may publish."""

    cache: ClusterCache
    writer: ServiceWriter
    reader: ServiceReader
    resync: Resync
    clock: Clock
    recorder: EventRecorder
    allows: Allows
    refusal: str = ""
    """Reason why no pool may have a Service; empty: pools may."""
    stored: dict[str, ServiceObjects] = field(default_factory=dict)
    """Pool → objects with its label, as last written or read."""
    changes: dict[str, int] = field(default_factory=dict)
    """Pool → number of changes of `stored`, by which a list that began before one is recognised."""

    def changed(self, pool: str) -> None:
        """Record a change of the stored objects of a pool."""
        self.changes[pool] = self.changes.get(pool, 0) + 1

    def service_uids(self) -> frozenset[str]:
        """Return the uids of all Services that exist."""
        return frozenset(item.meta.uid for known in self.stored.values() for item in known.services.values())

    def lives(self, uid: str) -> bool:
        """Return True if a pool has this uid."""
        return any(identity.uid == uid for identity in self.cache.identities(Kind.POOL).values())


class ServiceController:
    """Reconciler of Services. Errors of reads (ApiUnavailable) and writes (WriteError) pass."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._current: dict[str, tuple[object, float | None]] = {}
        """Pool → inputs of the last plan that is stored, and when to plan again anyway (monotonic seconds)."""
        self._next_round: dict[str, float] = {}
        self._merge_at: dict[str, float | None] = {}

    def forget_plan(self, name: str) -> None:
        """Plan again at once, whatever was stored."""
        self._current.pop(name, None)
        self._next_round.pop(name, None)

    async def reconcile(self, name: str) -> Result:
        """Write a Service, then its EndpointSlices, in at most one round per second, the first at once."""
        membership = self._context.cache.pools.get(name)
        if membership is None:
            self.forget_plan(name)
            self._merge_at.pop(name, None)
            return await self._remove_orphans(name)
        pool = membership.pool
        if pool.paused or pool.problem:
            self.forget_plan(name)
            return Result()
        if service_name(pool) is None and name not in self._context.stored:
            return Result()
        if not membership.matched:
            return Result(postponed=True)
        inputs, recheck_at = self._current.get(name, (None, None))
        if inputs == self._inputs(membership) and (recheck_at is None or self._context.clock() < recheck_at):
            return Result(requeue_at=recheck_at)
        self._current.pop(name, None)  # whatever happens until all is written
        taken, is_news = await self._take_name(membership)
        if self._context.cache.pools.get(name) is not membership:
            return Result()  # it is due again, because its spec changed
        if is_news:
            return Result(requeue_at=self._context.clock(), postponed=True, dirty=[Key(Kind.POOL, name)])
        return await self._round(membership, taken)

    async def _round(self, membership: PoolMembership, taken: str) -> Result:
        """Write what differs. `taken`: why the pool cannot have its Service."""
        pool, now = membership.pool, self._context.clock()
        name = pool.meta.name
        objects = self._context.stored.setdefault(name, ServiceObjects())
        plan = NO_SERVICE if taken or self._context.refusal else self._plan(membership, objects)
        inputs, recheck_at = self._inputs(membership), now + NAME_CHECK_SECONDS if taken else plan.recheck_at
        work = compare(pool, plan, objects, self._context.service_uids(), self._context.lives)
        freed: list[Key] = []
        if not work.is_empty:
            if now < (allowed := self._next_round.get(name, 0.0)):
                return Result(requeue_at=allowed, postponed=True)
            self._next_round[name] = now + ROUND_SECONDS
            freed = await self._write(work, objects)
        if work.is_partial:
            recheck_at = self._next_round[name]
        if not taken:  # the name of another is looked at again whenever the pool is due
            self._current[name] = (inputs, recheck_at)
        return Result(requeue_at=recheck_at, dirty=freed, change=None if work.is_empty else work.change)

    def _inputs(self, membership: PoolMembership) -> object:
        name = service_name(membership.pool)
        holder = self._context.cache.service_names.holder(name) if name else None
        return (membership.version, membership.backends_version, holder)

    def _plan(self, membership: PoolMembership, objects: ServiceObjects) -> ServicePlan:
        cache, name, now = self._context.cache, membership.pool.meta.name, self._context.clock()
        members = plan_members(membership, cache.slices.get(name, {}), ageing=cache.ageing)
        membership.record_plan(members.retained)
        merge_at, allows = self._merge_at.get(name), self._context.allows
        plan = plan_service(membership, members.published, objects.slices, allows, now=now, merge_at=merge_at)
        self._merge_at[name] = plan.merge_at
        return plan

    async def _take_name(self, membership: PoolMembership) -> tuple[str, bool]:
        """Return why the pool cannot have the Service of its name (empty: it can), and True if its status must say."""
        pool = membership.pool
        name = service_name(pool)
        if name is None or self._context.refusal:
            return "", False
        taken = await self._taken(pool, name)
        before, membership.service_name_taken = membership.service_name_taken, taken
        if before is None:
            stored = (condition.message for condition in pool.status.conditions if condition.type == NAME_TAKEN)
            before = next(stored, "")
        if taken == before:
            return taken, False
        membership.dirty.status = True
        return taken, True

    async def _taken(self, pool: Pool, name: str) -> str:
        holder = self._context.cache.service_names.holder(name)
        if holder != pool.meta.name:
            return f"pool {holder}, which is older, has the Service {name}: set another spec.service.name"
        objects = self._context.stored.setdefault(pool.meta.name, ServiceObjects())
        # One without the label is in no list, and may be ours nevertheless.
        found = objects.services.get(name) or await self._context.reader.service(name)
        if found is None:
            return ""
        if not is_ours(found, pool, self._context.lives):
            objects.services.pop(name, None)
            return f"Service {name} exists and is not of this pool: delete it, or set another spec.service.name"
        objects.services[name] = found
        return ""

    async def _write(self, work: ServiceWork, objects: ServiceObjects) -> list[Key]:
        """Write in an order that keeps clients connected. Return the pools that waited for a name.

        The Service comes first, because it owns the EndpointSlices. A former one goes when the new one is filled. What
        has ended goes before anything is added, and whether or not the Service is accepted.
        """
        pool = work.pool
        service, refusal = await self._write_or_keep_service(work, objects)
        diff = work.diff(service.uid if service else "")
        ended = work.ended(diff.delete)
        await self._delete_slices(pool, objects, ended)
        if service:
            await self._fill_slices(pool, service, objects, diff)
        await self._delete_slices(pool, objects, [item for item in (*diff.delete, *work.strays) if item not in ended])
        if refusal:
            raise refusal
        return [key for former in work.surplus for key in await self._delete_service(pool.meta.name, former)]

    async def _fill_slices(self, pool: Pool, service: Meta, objects: ServiceObjects, diff: SliceDiff) -> None:
        """Patch and create EndpointSlices. Raise the first refusal when all have been tried."""
        refusals: list[RejectedError] = []
        known = {item.meta.name: item for item, _ in diff.update}
        updates = {item.meta.name: content for item, content in diff.update}
        for name, content in {**updates, **diff.create}.items():
            self._ensure_exists(pool)
            try:
                written = (
                    await self._context.writer.patch_slice(pool, service, known[name], content)
                    if name in known
                    else await self._create_slice(pool, service, name, content)
                )
            except (NotLeaderError, FencedError):
                raise
            except RejectedError as error:
                refusals.append(error)
            else:
                self._store(pool, objects.slices, name, written)
        if refusals:
            raise refusals[0]

    async def _delete_slices(self, pool: Pool, objects: ServiceObjects, slices: Iterable[StoredEndpointSlice]) -> None:
        for item in slices:
            await self._context.writer.delete(pool.meta.name, item)
            self._store(pool, objects.slices, item.meta.name, None)

    async def _write_or_keep_service(
        self, work: ServiceWork, objects: ServiceObjects
    ) -> tuple[Meta | None, RejectedError | None]:
        """Write the Service as `_write_service`. If a change is refused, return the Service as it is, and the error."""
        try:
            return await self._write_service(work, objects), None
        except (NotLeaderError, FencedError):
            raise
        except RejectedError as error:
            if work.known is None or work.replaces_service:
                raise
            return work.known.meta, error

    async def _write_service(self, work: ServiceWork, objects: ServiceObjects) -> Meta | None:
        """Write the Service if it differs. Return it, or None if the pool has none."""
        desired, known, pool, writer = work.plan.service, work.known, work.pool, self._context.writer
        if desired is None:
            return None
        if known and known.deleted:
            raise RetryableError(f"services/{desired.name}: another client deletes it; waiting until it is gone")
        if known and not work.service_differs:
            return known.meta
        self._ensure_exists(pool)
        if known and work.replaces_service:
            await writer.delete(pool.meta.name, known)
            self._store(pool, objects.services, desired.name, None)
            known = None
        written = (
            await writer.patch_service(pool, known, desired) if known else await writer.create_service(pool, desired)
        )
        self._store(pool, objects.services, desired.name, written)
        return written.meta if written else None

    async def _create_slice(
        self, pool: Pool, service: Meta, name: str, content: DesiredSlice
    ) -> StoredEndpointSlice | None:
        """Create an EndpointSlice. One of the name is made as desired if it is ours, for example without its label."""
        writer = self._context.writer
        try:
            return await writer.create_slice(pool, service, name, content)
        except StaleError:
            found = await self._context.reader.slice(name)
            if found is None:
                raise
            if found.owner != service.uid and found.term is None:
                raise RejectedError(f"endpointslices/{name}: exists and is not of this pool: delete it") from None
            return await writer.patch_slice(pool, service, found, content)

    async def _delete_service(self, pool: str, service: StoredService) -> list[Key]:
        """Delete a Service. The garbage collector deletes its EndpointSlices. Return the pool that wants its name."""
        await self._context.writer.delete(pool, service)
        objects, name = self._context.stored[pool], service.meta.name
        objects.services.pop(name, None)
        objects.slices = {key: item for key, item in objects.slices.items() if service_of(key) != name}
        self._context.changed(pool)
        holder = self._context.cache.service_names.holder(name)
        if holder is None:
            return []
        self.forget_plan(holder)
        return [Key(Kind.POOL, holder)]

    async def _remove_orphans(self, name: str) -> Result:
        """Delete what is left of a deleted pool (D11). The garbage collector is slow, and ignores what has no owner."""
        objects = self._context.stored.get(name)
        if objects is None:
            return Result()
        absent, dirty = await self._context.resync.refresh(Kind.POOL, name)
        if not absent:
            if name not in self._context.cache.pools:
                raise RetryableError(f"services of {name}: the pool cannot be read; kept until it can be")
            return Result(dirty=dirty)
        freed = set(dirty)
        for service in list(objects.services.values()):
            if service.term is not None and not (service.owner and self._context.lives(service.owner)):
                freed.update(await self._delete_service(name, service))
        existing = self._context.service_uids()
        for item in [item for item in objects.slices.values() if item.owner not in existing]:
            with suppress(StaleError):
                await self._context.writer.delete(name, item)
        if self._context.stored.get(name) is objects:
            del self._context.stored[name]
        self._context.changed(name)
        return Result(dirty=freed)

    def _ensure_exists(self, pool: Pool) -> None:
        """Raise StaleError if the pool was deleted: one created again under the name must not get what is of it."""
        identity = self._context.cache.identities(Kind.POOL).get(pool.meta.name)
        if identity is None or identity.uid != pool.meta.uid:
            raise StaleError(f"nodepools/{pool.meta.name}: deleted meanwhile", Kind.POOL, pool.meta.name)

    def _store(self, pool: Pool, objects: dict[str, T], name: str, stored: T | None) -> None:
        """Record the response of a write. None: the object does not exist."""
        objects.pop(name, None)
        if stored is not None:
            objects[name] = stored
        self._context.changed(pool.meta.name)
