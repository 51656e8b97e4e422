"""Comparison of the cache with what the API server returns now: complete LISTs, and GETs of single objects."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from hotpool.controllers.context import ControllerContext
from hotpool.controllers.ingest import Ingest
from hotpool.core.model import Identity, Kind
from hotpool.errors import RetryableError
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.decode import DecodeError, decode, identify
from hotpool.kube.reader import Reader

log = structlog.get_logger(__name__)

YIELD_INTERVAL_SECONDS: Final = 0.02


class Resync:
    """Reads of one fleet, stored in the cache. `kinds` must be listed before anything is written."""

    def __init__(self, context: ControllerContext, reader: Reader, ingest: Ingest, kinds: Sequence[Kind]) -> None:
        self._context = context
        self._cache = context.cache
        self._reader = reader
        self._ingest = ingest
        self.kinds = kinds
        self._yield_at = context.clock()

    async def run(self) -> None:
        """Compare a complete LIST of each kind with the cache, by uid and resourceVersion (requirement C7).

        Absence, and a version older than the cached one, are confirmed by a GET. Raises ApiUnavailable.
        """
        for kind in self.kinds:
            known = dict(self._cache.identities(kind))
            listed: dict[str, Identity] = {}
            async for body in self._reader.each(kind):
                listed |= [identity] if (identity := identify(body)) else []
                self._ingest.on_object(kind, None, body)
                await self._yield_to_loop()
            conflicts = self._cache.versions.conflicts
            doubtful = [name for name, identity in listed.items() if conflicts(kind, name, identity)]
            for name in [*(known.keys() - listed.keys()), *doubtful]:
                await self.refresh(kind, name, known.get(name))

    async def _yield_to_loop(self) -> None:
        """Let other tasks run, at most once per interval."""
        if self._context.clock() > self._yield_at + YIELD_INTERVAL_SECONDS:
            await asyncio.sleep(0)
            self._yield_at = self._context.clock()

    async def refresh(self, kind: Kind, name: str, before: Identity | None = None) -> bool:
        """Read one object into the cache. Return True if the API server returned 404, the proof of its deletion (C7).

        `before`: the identity confirmed before this read. An older version than that comes from a restored etcd.
        """
        before = before or self._cache.identities(kind).get(name)
        try:
            body = await self._reader.get(kind, name)
        except ApiUnavailable as error:
            log.warning("object not refreshed", error=str(error))
            return False
        decoded = None if body is None else decode(kind, body)
        if decoded is None and before:
            self._context.mark(self._cache.delete(kind, name, before.uid), None)
        elif decoded is not None and not isinstance(decoded, DecodeError):
            restored = before is None or decoded.meta.version < before.version
            self._context.mark(self._cache.upsert(decoded, self._context.clock(), restored=restored), None)
        return decoded is None

    async def confirm(self, kind: Kind, name: str, uid: str) -> bool:
        """Return True if a GET returns the object with this uid; else refresh the cache. Raises RetryableError."""
        try:
            identity = identify(await self._reader.get(kind, name) or {})
        except ApiUnavailable as error:
            raise RetryableError(str(error)) from None
        if identity and identity[1].uid == uid:
            return True
        await self.refresh(kind, name)
        return False
