"""Dependencies that the controllers share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from hotpool.clock import Clock
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Key, Kind
from hotpool.events.recorder import EventRecorder
from hotpool.kube.decode import DecodeError, decode
from hotpool.kube.writer import KubeWriter
from hotpool.observability.hotplug_latency import HotplugLatency
from hotpool.projection.publisher import Publisher

ROUND_SECONDS: Final = 1.0
"""Shortest time between two writes of slices and urgent status of one pool, or of the status of a generator (D3)."""

MarkDirty = Callable[[Iterable[Key], float | None], None]
"""Schedules keys for a time in monotonic seconds; None: now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerContext:
    """Cache, writers and recorders of one fleet."""

    cache: ClusterCache
    kube: KubeWriter
    publisher: Publisher | None
    clock: Clock
    mark: MarkDirty
    recorder: EventRecorder
    latency: HotplugLatency

    def apply_response(self, kind: Kind, response: Any) -> set[Key]:
        """Store the object of a write's response, so that its watch event marks nothing. Return the affected keys."""
        stored = decode(kind, response) if response else None
        if stored is None or isinstance(stored, DecodeError):
            return set()
        return self.cache.upsert(stored, self.clock())
