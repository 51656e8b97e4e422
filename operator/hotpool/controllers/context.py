"""Dependencies that the controllers of Kubernetes share."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from hotpool.clock import Clock
from hotpool.controllers.resync import Resync
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.drain import DrainObservation
from hotpool.core.model import Key, Kind, Meta
from hotpool.events.recorder import EventRecorder
from hotpool.kube.decode import DecodeError, decode
from hotpool.kube.writer import KubeWriter

ROUND_SECONDS: Final = 1.0
"""Shortest time between two writes of slices and urgent status of one pool, or of the status of a generator (D3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerContext:
    """Cache, writer and recorder of one fleet."""

    cache: ClusterCache
    kube: KubeWriter
    resync: Resync
    clock: Clock
    recorder: EventRecorder
    service_refusal: str = ""
    """Reason why no pool may have a Service; empty: pools may."""
    drains: MutableMapping[str, DrainObservation] = field(default_factory=dict)
    """Draining node → what was last read about its drain."""
    dirty: set[Key] = field(default_factory=set)
    """Keys that the stored responses affect; the next result takes them along, also that of a failure."""

    def apply_response(self, kind: Kind, response: Any) -> None:
        """Store the object of a write's response, so that its watch event is no news."""
        stored = decode(kind, response) if response else None
        if stored is not None and not isinstance(stored, DecodeError):
            self.dirty.update(self.cache.apply_response(stored, self.clock()))

    def exists(self, kind: Kind, known: Meta) -> bool:
        """Return True unless the object was deleted meanwhile, also if another one of its name was created since."""
        identity = self.cache.identities(kind).get(known.name)
        return identity is not None and identity.uid == known.uid

    async def refresh(self, kind: Kind, name: str) -> bool:
        """Read one object into the cache. Return True if the API server returned 404."""
        absent, dirty = await self.resync.refresh(kind, name)
        self.dirty.update(dirty)
        return absent
