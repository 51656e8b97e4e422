"""Services as a target (requirement D12): a Service of each pool that asks for one, and its EndpointSlices.

Nothing watches these objects. The response of a write is what is stored, and the drift check compares versions, so that
an edit by another client is repaired within `drift_seconds`.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final

import structlog

from hotpool.controllers.result import Result
from hotpool.controllers.service import NAME_CHECK_SECONDS, ServiceContext, ServiceController
from hotpool.core.model import Key, Kind
from hotpool.core.service_model import ServiceObjects
from hotpool.errors import FencedError, NotLeaderError, RejectedError, StaleError, UnavailableError
from hotpool.kube.client import ApiUnavailable
from hotpool.observability.metrics import FAILURES

log = structlog.get_logger(__name__)

_GRANT: Final = "the chart grants it with services.enabled=true"


class ServiceTarget:
    """Services and EndpointSlices of one fleet."""

    name: Final = "services"
    concurrency: Final[Mapping[Kind, int]] = {Kind.POOL: 8}
    drift_seconds: Final[float | None] = 5.0

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._controller = ServiceController(context)
        self._busy: set[str] = set()
        """Pools that are being reconciled."""
        self._edited: dict[str, set[str]] = {}
        """Pool → objects that another client changed, until they are repaired."""
        self._listed = False

    async def connect(self) -> Collection[Key]:
        """Check all rights; at first, read what a former leader wrote. Raises UnavailableError."""
        try:
            await self._check_rights()
            if self._listed:
                return ()
            self._context.stored.update(await self._context.reader.objects())
        except ApiUnavailable as error:
            raise UnavailableError(str(error)) from None
        self._listed = True
        return [Key(Kind.POOL, name) for name in self._context.stored]

    async def reconcile(self, key: Key) -> Result:
        """Reconcile the Service of one pool. Objects that a write found changed are read again first."""
        name = key.name
        self._busy.add(name)
        try:
            result = await self._controller.reconcile(name)
        except ApiUnavailable as error:
            raise UnavailableError(str(error)) from None
        except StaleError:
            self._controller.forget_plan(name)
            await self._read_again(name)
            raise
        except (NotLeaderError, FencedError):
            raise
        except RejectedError as error:
            return await self._refused(key, error)
        finally:
            self._busy.discard(name)
        if not result.postponed and (edited := self._edited.pop(name, None)):
            self._note_repair(name, edited)
        return result

    async def check_drift(self, settled: Callable[[], bool]) -> Collection[Key]:
        """Compare versions with those written last. Read and return the pools of which the content differs."""
        del settled
        before = dict(self._context.changes)
        stored = self._context.stored
        try:
            listed = await self._context.reader.identities()
            differing = [
                name
                for name in {*listed, *stored}
                if listed.get(name, set()) != stored.get(name, ServiceObjects()).identities()
            ]
            return [Key(Kind.POOL, name) for name in differing if await self._is_edited(name, before)]
        except ApiUnavailable as error:
            raise UnavailableError(str(error)) from None

    async def _is_edited(self, name: str, before: Mapping[str, int]) -> bool:
        """Read the objects of a pool. Return True if their content differs. Ignore one that was written meanwhile."""
        if self._is_touched(name, before):
            return False
        found = await self._read(name)
        if self._is_touched(name, before):
            return False
        edited = self._context.stored.get(name, ServiceObjects()).changed(found)
        self._context.stored[name] = found
        if edited:
            self._controller.forget_plan(name)
            self._edited.setdefault(name, set()).update(edited)
        return bool(edited)

    def _is_touched(self, name: str, before: Mapping[str, int]) -> bool:
        return name in self._busy or self._context.changes.get(name) != before.get(name)

    async def _read_again(self, name: str) -> None:
        try:
            self._context.stored[name] = await self._read(name)
        except ApiUnavailable as error:
            raise UnavailableError(str(error)) from None
        self._context.changed(name)

    async def _read(self, name: str) -> ServiceObjects:
        """Return the objects of a pool, with those that have lost its label but not their owner."""
        reader, known = self._context.reader, self._context.stored.get(name, ServiceObjects())
        found = (await reader.objects(name)).get(name, ServiceObjects())
        for missing in known.services.keys() - found.services.keys():
            service, former = await reader.service(missing), known.services[missing]
            if service and service.meta.uid == former.meta.uid and service.owner:
                found.services[missing] = service
        for missing in known.slices.keys() - found.slices.keys():
            item, stored = await reader.slice(missing), known.slices[missing]
            if item and item.meta.uid == stored.meta.uid and item.owner:
                found.slices[missing] = item
        return found

    async def _check_rights(self) -> None:
        """Raise UnavailableError if this account lacks a right."""
        if missing := await self._context.reader.missing_right():
            raise UnavailableError(f"this account may not {missing}: {_GRANT}")

    async def _refused(self, key: Key, error: RejectedError) -> Result:
        """Try again later, without a failure of the target: the spec of one pool may be the reason."""
        try:
            await self._check_rights()
        except ApiUnavailable as unavailable:
            raise UnavailableError(str(unavailable)) from None
        FAILURES.labels(type(error).__name__).inc()
        log.warning("write of a Service refused", pool=key.name, error=str(error))
        self._context.recorder.write_rejected(key, str(error))
        self._controller.forget_plan(key.name)
        return Result(requeue_at=self._context.clock() + NAME_CHECK_SECONDS)

    def _note_repair(self, name: str, edited: set[str]) -> None:
        membership = self._context.cache.pools.get(name)
        if membership and not membership.pool.paused:
            self._context.recorder.service_repaired(membership.pool.meta, edited)
