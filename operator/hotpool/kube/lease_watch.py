"""Watch of the nodes' Leases (requirements C2, C3).

Read in bursts, because liveness does not need milliseconds and one wake-up per line would cost ten times as much
(measured: docs/reference/benchmarks.md). Decides nothing; the deletion of a Lease is ignored.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog
from kubernetes.aio.client import ApiClient

from hotpool.api.meta import LEASE_LABEL, PROBE_LEASE
from hotpool.clock import Clock
from hotpool.core.model import Heartbeat
from hotpool.kube import list_watch
from hotpool.kube.decode import decode_lease
from hotpool.kube.reader import READ_TIMEOUT, read_body
from hotpool.kube.rest import error_text, path, send

log = structlog.get_logger(__name__)

_BATCH_PAUSE_SECONDS = 1.0  # seconds; a fifteenth of the usual H
BACKLOG_BYTES = 1 << 17
_PAGE = 500


class _Metadata(msgspec.Struct):
    name: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815 - the wire's name.


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None  # noqa: N815
    renewTime: str | None = None  # noqa: N815
    leaseDurationSeconds: int | None = None  # noqa: N815


class _Lease(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec | None = None


class _Line(msgspec.Struct):
    type: str
    object: _Lease


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


class LeaseWatch:
    """Endless list-and-watch of the nodes' Leases."""

    def __init__(self, api: ApiClient, namespace: str, observer: LeaseWatchObserver, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._path = path("coordination.k8s.io/v1", "namespaces", namespace, "leases")
        self._observer = observer
        self._decode: Callable[[bytes], _Line] = msgspec.json.Decoder(_Line).decode
        self._lost = False
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled. Report each error as a lost watch and retry with growing, jittered delay."""
        await list_watch.run_forever(self._list, self._watch, self._disconnected)

    def _disconnected(self, error: BaseException, delay: float) -> None:
        self._lost = True
        self._observer.on_watch_lost()
        log.warning("watch of Leases lost", error=error_text(error), retry_seconds=round(delay, 1))

    async def _list(self) -> str:
        version = more = ""
        while True:
            query = {"labelSelector": LEASE_LABEL, "limit": str(_PAGE)} | ({"continue": more} if more else {})
            page = await send(self._api, "GET", self._path, query=query, seconds=READ_TIMEOUT)
            body = msgspec.json.decode(await read_body(page, "list leases"))
            await self._deliver([msgspec.convert(item, _Lease) for item in body.get("items") or []])
            version, more = body["metadata"]["resourceVersion"], body["metadata"].get("continue") or ""
            if not more:
                self._lost = False
                self._observer.on_watch_restored()
                self.listed.set()
                return str(version)

    async def _watch(self, version: str) -> str:
        """Read one watch to its end. Return the version to continue from, or an empty string to list again."""
        query = list_watch.watch_from(version) | {"labelSelector": LEASE_LABEL}
        response = await send(self._api, "GET", self._path, query=query, seconds=list_watch.LONGEST_SECONDS)
        rest = b""
        if response.status >= 400:  # noqa: PLR2004 - HTTP's own number.
            await read_body(response, "watch leases")
        if self._lost:
            self._lost = False
            self._observer.on_watch_restored(listed=False)
        async for chunk in list_watch.chunks(response):
            *lines, rest = (rest + chunk).split(b"\n")
            events = [self._decode(line) for line in lines if line]
            if any(event.type == "ERROR" for event in events):
                return ""
            await self._deliver([event.object for event in events if event.type in {"ADDED", "MODIFIED"}])
            version = events[-1].object.metadata.resourceVersion if events else version
            if len(chunk) < BACKLOG_BYTES:  # a full chunk means a backlog: do not pause
                await _pause(response)
        return version

    async def _deliver(self, leases: Sequence[_Lease]) -> None:
        """Pass on heartbeats before the probe Lease, because it proves that everything before it was delivered."""
        for lease in leases:
            if lease.spec and (heartbeat := _heartbeat(lease, lease.spec)):
                self._observer.on_heartbeats([heartbeat])
                await self._clock.pace()
        for lease in leases:
            if lease.metadata.name == PROBE_LEASE and lease.spec and lease.spec.renewTime:
                self._observer.on_probe_received(lease.spec.renewTime)


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
