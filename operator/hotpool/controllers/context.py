"""What the phases of all kinds need: the state, the sinks, whom they tell, and how what was stored is taken in.

Made by the reconciler. Decides nothing.
"""

from collections.abc import Awaitable, Callable, Iterable
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
"""Slices and urgent status of one pool, and status of a generator, are written at most once in this time (D3)."""

MarkDirty = Callable[[Iterable[Key], float | None], None]
"""Makes keys due: at a moment (monotonic seconds), or now."""
Confirm = Callable[[Kind, str, str], Awaitable[bool]]
"""Asks whether the object of this name still has this uid; raises Retryable where there is no answer."""
Refresh = Callable[[Kind, str], Awaitable[bool]]
"""Reads one object anew; True where the API server says that there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerContext:
    """One fleet's state and the ways out of it."""

    cache: ClusterCache
    kube: KubeWriter
    publisher: Publisher | None
    clock: Clock
    mark: MarkDirty
    refresh: Refresh
    confirm: Confirm
    recorder: EventRecorder
    latency: HotplugLatency

    def apply_response(self, kind: Kind, written: Any) -> set[Key]:
        """Take in what was stored, so that its own echo marks nothing."""
        seen = decode(kind, written) if written else None
        if seen is None or isinstance(seen, DecodeError):
            return set()
        return self.cache.upsert(seen, self.clock())
