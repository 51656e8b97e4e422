"""Watched objects, heartbeats and the state of the Lease watch, stored in the cache."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from hotpool.controllers.context import ControllerContext
from hotpool.core.model import Heartbeat, Kind, Node
from hotpool.core.watch_health import WatchHealth
from hotpool.kube.decode import DecodeError, decode, identify
from hotpool.observability.metrics import HEARTBEATS, REJECTED, WATCH_UP

log = structlog.get_logger(__name__)


class Ingest:
    """Observer of all watches. `wake` is set when the time of the next silence may have changed."""

    def __init__(self, context: ControllerContext, wake: asyncio.Event) -> None:
        self._context = context
        self._cache = context.cache
        self._clock = context.clock
        self._wake = wake
        self._watch_health = WatchHealth()
        self._was_stale = True

    def on_object(self, kind: Kind, event: str | None, body: Any) -> None:
        """Store a watched or listed object and mark the affected keys. A version in the cache is not decoded again."""
        identity = identify(body)
        if event != "DELETED" and identity and self._cache.identities(kind).get(identity[0]) == identity[1]:
            return
        decoded = decode(kind, body)
        if isinstance(decoded, DecodeError):
            REJECTED.labels(kind.value).inc()
            log.warning("invalid object ignored", kind=decoded.kind, name=decoded.name, reason=decoded.reason)
        elif event == "DELETED":
            self._context.mark(self._cache.delete(kind, decoded.meta.name, decoded.meta.uid), None)
        elif event and isinstance(decoded, Node):
            self._on_watched_node(decoded)
        else:
            self._context.mark(self._cache.upsert(decoded, self._clock()), None)

    def _on_watched_node(self, node: Node) -> None:
        """Store a watched node. Measure the latency of a new report (requirement F4)."""
        known, now = self._cache.nodes.get(node.meta.name), self._clock()
        before = known.view.node.report if known else None
        dirty = self._cache.upsert(node, now)
        self._context.mark(dirty, None)
        if self._cache.gate_open and node.report and (before is None or before.time != node.report.time):
            pools = (key.name for key in dirty if key.kind is Kind.POOL and self._cache.pools[key.name].urgent)
            self._context.latency.reported(node.meta.name, pools, node.report.time, now, self._clock.unix())

    def on_heartbeats(self, heartbeats: Sequence[Heartbeat]) -> None:
        """Record the heartbeats of listed or changed Leases."""
        HEARTBEATS.inc(len(heartbeats))
        now = self._clock()
        for heartbeat in heartbeats:
            self._context.mark(self._cache.record_heartbeat(heartbeat, now), None)

    def on_probe_sent(self, renewed: str) -> None:
        """Record the renewTime with which the probe Lease is about to be written."""
        self._watch_health.probe_sent(renewed, self._clock())

    def on_probe_received(self, renewed: str) -> None:
        """Record the renewTime of the probe Lease that the watch delivered."""
        self._watch_health.probe_received(renewed, self._clock())
        self._update_watch_state()

    def on_watch_lost(self) -> None:
        """Stop counting silence until the Lease watch is open again."""
        self._watch_health.on_disconnect()
        self._update_watch_state()

    def on_watch_restored(self) -> None:
        """Record that the Lease watch is open."""
        self._watch_health.on_connect(self._clock())
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
            self._wake.set()
        self._was_stale = stale
        WATCH_UP.labels("leases").set(not stale)
        self._context.recorder.lease_watch_health(healthy=not stale)

    def advance(self, now: float) -> None:
        """Mark the keys that the silence of nodes affects, as far as the Lease watch is proven alive."""
        self._update_watch_state()
        if not self._was_stale:
            self._context.mark(self._cache.advance(now, self._watch_health.confirmed_until), None)

    def next_deadline(self) -> float | None:
        """Return when the next silence takes effect (monotonic seconds). None: never, or the watch is stale."""
        return None if self._was_stale else self._cache.next_deadline()
