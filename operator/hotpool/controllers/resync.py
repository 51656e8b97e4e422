"""Comparison of the cache with what the API server returns now: complete LISTs, and GETs of single objects."""

from collections.abc import AsyncGenerator, Sequence

import structlog

from hotpool.clock import Clock
from hotpool.controllers.ingest import Ingest
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Identity, Key, Kind
from hotpool.errors import RetryableError
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.decode import DecodeError, decode, identify
from hotpool.kube.reader import Reader

log = structlog.get_logger(__name__)


class Resync:
    """Reads of one fleet, stored in the cache. `kinds` must be listed before anything is written."""

    def __init__(
        self, cache: ClusterCache, reader: Reader, ingest: Ingest, clock: Clock, kinds: Sequence[Kind]
    ) -> None:
        self._cache = cache
        self._reader = reader
        self._ingest = ingest
        self._clock = clock
        self.kinds = kinds

    async def run(self) -> AsyncGenerator[set[Key], None]:
        """Compare a complete LIST of each kind with the cache, by uid and resourceVersion (requirement C7).

        Only objects that differ are decoded. Yield the keys whose desired state may differ as they are found: a read
        may fail later. Absence, and a version older than the cached one, are confirmed by a GET. Raises ApiUnavailable.
        """
        for kind in self.kinds:
            cached = self._cache.identities(kind)
            known = dict(cached)
            listed: dict[str, Identity] = {}
            async for identity, changed in self._reader.each_changed(kind, cached):
                listed |= [identity] if identity else []
                if changed is not None:
                    yield self._ingest.on_object(kind, None, changed)
                await self._clock.pace()
            conflicts = self._cache.versions.conflicts
            doubtful = [name for name, identity in listed.items() if conflicts(kind, name, identity)]
            for name in [*(known.keys() - listed.keys()), *doubtful]:
                yield (await self.refresh(kind, name, known.get(name)))[1]

    async def refresh(self, kind: Kind, name: str, before: Identity | None = None) -> tuple[bool, set[Key]]:
        """Read one object into the cache.

        Return True if the API server returned 404, the proof of its deletion (C7), and the keys to reconcile.
        `before`: the identity confirmed before this read. An older version than that comes from a restored etcd.
        """
        before = before or self._cache.identities(kind).get(name)
        try:
            body = await self._reader.get(kind, name)
        except ApiUnavailable as error:
            log.warning("object not refreshed", error=str(error))
            return False, set()
        decoded = None if body is None else decode(kind, body)
        dirty: set[Key] = set()
        if decoded is None and before:
            dirty = self._cache.delete(kind, name, before.uid)
        elif decoded is not None and not isinstance(decoded, DecodeError):
            restored = before is None or decoded.meta.version < before.version
            dirty = self._cache.upsert(decoded, self._clock(), restored=restored)
        return decoded is None, dirty

    async def confirm(self, kind: Kind, name: str, uid: str) -> tuple[bool, set[Key]]:
        """Return True if a GET returns the object with this uid; else refresh the cache. Also return the dirty keys.

        Raises RetryableError.
        """
        try:
            identity = identify(await self._reader.get(kind, name) or {})
        except ApiUnavailable as error:
            raise RetryableError(str(error)) from None
        if identity and identity[1].uid == uid:
            return True, set()
        return False, (await self.refresh(kind, name))[1]
