"""Watched objects and heartbeats, stored in the cache; and the state of the Lease watch."""

from collections.abc import Sequence
from typing import Any

import structlog

from hotpool.clock import Clock
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.endpoints.pod_observations import PodAddresses
from hotpool.core.model import Heartbeat, Key, Kind, PodReference
from hotpool.core.watch_health import WatchHealth
from hotpool.events.recorder import EventRecorder
from hotpool.kube.decode import DecodeError, decode, identify
from hotpool.observability.metrics import HEARTBEATS, REJECTED

log = structlog.get_logger(__name__)


class Ingest:
    """Observer of all watches. Each method returns the keys whose desired state may differ."""

    def __init__(self, cache: ClusterCache, clock: Clock, recorder: EventRecorder) -> None:
        self._cache = cache
        self._clock = clock
        self._recorder = recorder
        self._watch_health = WatchHealth()
        self._was_stale = True

    def on_object(self, kind: Kind, event: str | None, body: Any) -> set[Key]:
        """Store a watched or listed object. A version in the cache is not decoded again."""
        identity = identify(body)
        if event != "DELETED" and identity and self._cache.identities(kind).get(identity[0]) == identity[1]:
            return set()
        decoded = decode(kind, body)
        if isinstance(decoded, DecodeError):
            REJECTED.labels(kind.value).inc()
            log.warning("invalid object ignored", kind=decoded.kind, name=decoded.name, reason=decoded.reason)
            return set()
        if event == "DELETED":
            return self._cache.delete(kind, decoded.meta.name, decoded.meta.uid)
        return self._cache.upsert(decoded, self._clock())

    def on_pod(self, pod: PodReference, found: PodAddresses | None) -> set[Key]:
        """Store what was read of a pod that an agent names as a service; None: the read failed."""
        return self._cache.observe_pod(pod, found)

    def on_heartbeats(self, heartbeats: Sequence[Heartbeat]) -> set[Key]:
        """Record the heartbeats of listed or changed Leases."""
        HEARTBEATS.inc(len(heartbeats))
        now = self._clock()
        return {key for heartbeat in heartbeats for key in self._cache.record_heartbeat(heartbeat, now)}

    def on_probe_sent(self, renewed: str) -> None:
        """Record the renewTime with which the probe Lease is about to be written."""
        self._watch_health.probe_sent(renewed, self._clock())

    def on_probe_received(self, renewed: str) -> None:
        """Record the renewTime of the probe Lease that the watch delivered."""
        self._update_watch_state()  # it may be stale although nothing looked at the time meanwhile
        self._watch_health.probe_received(renewed, self._clock())
        self._update_watch_state()

    def on_watch_lost(self) -> None:
        """Stop counting silence until the Lease watch is open again."""
        self._watch_health.on_disconnect()
        self._update_watch_state()

    def on_watch_restored(self, *, listed: bool = True) -> None:
        """Record that the Lease watch is open, after a complete listing or where it broke."""
        self._watch_health.on_connect(self._clock() if listed else None)
        self._update_watch_state()

    @property
    def watch_is_stale(self) -> bool:
        """True while the Lease watch is not proven alive."""
        return self._watch_health.is_stale(self._clock())

    def _update_watch_state(self) -> None:
        """Publish the state of the Lease watch. Give every node a fresh period when it recovers (requirement C3)."""
        stale = self.watch_is_stale
        if self._was_stale and not stale:
            self._cache.reset_liveness(self._clock())
        self._was_stale = stale
        self._recorder.lease_watch_health(healthy=not stale)

    def advance(self, now: float) -> set[Key]:
        """Match new pools and generators, and record silence, as far as the Lease watch is proven alive; both in steps.

        More is due while `next_deadline` is not later than `now`.
        """
        self._update_watch_state()
        if self._was_stale:
            return self._cache.match_step()
        return self._cache.advance(now, self._watch_health.confirmed_until)

    def next_deadline(self) -> float | None:
        """Return when `advance` has work (monotonic seconds). None: never, or the watch is stale."""
        due = self._cache.next_deadline()
        return None if due and self._was_stale else due
