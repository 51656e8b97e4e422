"""Watch of the nodes' Leases (requirements C2, C3).

Read in bursts, because liveness does not need milliseconds and one wake-up per line would cost ten times as much
(measured: docs/reference/benchmarks.md). Decides nothing; the deletion of a Lease is ignored.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec
from kubernetes.aio.client import ApiClient

from hotpool.api.meta import LEASE_LABEL, PROBE_LEASE
from hotpool.clock import Clock
from hotpool.core.model import Heartbeat
from hotpool.kube.decode import decode_lease
from hotpool.kube.list_watch import Line, ListWatch
from hotpool.kube.rest import WireObject, path

_BATCH_PAUSE_SECONDS = 1.0  # seconds; a fifteenth of the usual H
BACKLOG_BYTES = 1 << 17


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None  # noqa: N815 - the wire's name.
    renewTime: str | None = None  # noqa: N815
    leaseDurationSeconds: int | None = None  # noqa: N815


class _Lease(WireObject):
    spec: _Spec | None = None


class LeaseWatchObserver(Protocol):
    """Receiver of heartbeats and of the state of the watch."""

    def on_heartbeats(self, heartbeats: Sequence[Heartbeat]) -> None:
        """Receive the heartbeats of listed or changed Leases."""

    def on_probe_received(self, renewed: str) -> None:
        """Receive the renewTime of the probe Lease, listed or changed."""

    def on_watch_lost(self) -> None:
        """Stop counting silence: the watch disconnected."""

    def on_watch_restored(self, *, listed: bool = True) -> None:
        """Note that the watch is open again, after a complete listing or where it broke."""


class LeaseWatch(ListWatch[_Lease]):
    """Endless list-and-watch of the nodes' Leases. Each error is a lost watch."""

    def __init__(self, api: ApiClient, namespace: str, observer: LeaseWatchObserver, clock: Clock) -> None:
        leases = path("coordination.k8s.io/v1", "namespaces", namespace, "leases")
        super().__init__(api, leases, _Lease, clock, labelSelector=LEASE_LABEL)
        self._observer = observer

    def _disconnected(self, problem: str) -> None:
        del problem
        self._observer.on_watch_lost()

    def _opened(self, *, listed: bool) -> None:
        self._observer.on_watch_restored(listed=listed)

    async def _deliver(self, lines: Iterable[Line[_Lease]]) -> None:
        """Deliver the probe Lease last, because it proves that everything before it was delivered."""
        await super()._deliver(sorted(lines, key=lambda line: line.object.metadata.name == PROBE_LEASE))

    def _receive(self, line: Line[_Lease]) -> None:
        lease = line.object
        if lease.spec is None or line.type not in {None, "ADDED", "MODIFIED"}:
            return
        if heartbeat := _heartbeat(lease, lease.spec):
            self._observer.on_heartbeats([heartbeat])
        if lease.metadata.name == PROBE_LEASE and lease.spec.renewTime:
            self._observer.on_probe_received(lease.spec.renewTime)

    async def _pause(self, response: Any, received: int) -> None:
        if received < BACKLOG_BYTES:  # a full chunk means a backlog: do not pause
            await _pause(response)


def _heartbeat(lease: _Lease, spec: _Spec) -> Heartbeat | None:
    known = lease.metadata
    return decode_lease(
        known.name,
        spec.holderIdentity,
        spec.renewTime,
        spec.leaseDurationSeconds,
        uid=known.uid,
        version=known.resourceVersion,
    )


async def _pause(response: Any) -> None:
    """Pause reading of the socket, so that one wake-up reads many lines."""
    transport = response.connection.transport if response.connection else None
    set_limits = getattr(transport, "set_read_buffer_limits", lambda **_: None)  # TLS: else each record wakes the loop
    if transport:
        set_limits(high=1)
        transport.pause_reading()
    await asyncio.sleep(_BATCH_PAUSE_SECONDS)
    if transport and not transport.is_closing():
        set_limits()  # other requests use the connection after this watch
        transport.resume_reading()
