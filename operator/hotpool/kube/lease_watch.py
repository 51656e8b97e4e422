"""The raw Lease stream: who beats (requirements C2, C3).

Feeds the reconciler. Read in bursts, because liveness needs no millisecond and one wake-up for each line would cost ten
times as much (measured: docs/benchmarks.md). Decides nothing; a Lease deleted tells nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog
from kubernetes.aio.client import ApiClient

from hotpool.api.meta import LEASE_LABEL, PROBE_LEASE
from hotpool.core.model import Heartbeat
from hotpool.kube import list_watch
from hotpool.kube.client import READ_TIMEOUT, read_body
from hotpool.kube.decode import decode_lease
from hotpool.kube.rest import error_text, path, send

log = structlog.get_logger(__name__)

_QUIET_SECONDS = 30.0
"""A stream without a line for so long is opened anew: the canary alone brings one each 5 s."""
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
    """Whom the stream tells."""

    def on_heartbeats(self, beats: Sequence[Heartbeat]) -> None:
        """Leases as listed or changed."""

    def on_probe_received(self, renewed: str) -> None:
        """The renewTime of the canary Lease, as listed or changed."""

    def on_watch_lost(self) -> None:
        """The stream broke: nobody's silence counts from here."""

    def on_watch_restored(self) -> None:
        """The stream is open again."""


class LeaseWatch:
    """Lists, then watches the nodes' Leases for ever."""

    def __init__(self, api: ApiClient, namespace: str, listener: LeaseWatchObserver) -> None:
        self._api = api
        self._path = path("coordination.k8s.io/v1", "namespaces", namespace, "leases")
        self._listener = listener
        self._decode: Callable[[bytes], _Line] = msgspec.json.Decoder(_Line).decode
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """Never returns; trouble is told as deafness and tried again with growing, jittered delay."""
        await list_watch.run_forever(self._list, self._watch, self._disconnected)

    def _disconnected(self, error: BaseException, delay: float) -> None:
        self._listener.on_watch_lost()
        log.warning("lease stream broke", error=error_text(error), retry_seconds=round(delay, 1))

    async def _list(self) -> str:
        version = more = ""
        while True:
            query = {"labelSelector": LEASE_LABEL, "limit": str(_PAGE)} | ({"continue": more} if more else {})
            page = await send(self._api, "GET", self._path, query=query, seconds=READ_TIMEOUT)
            body = msgspec.json.decode(await read_body(page, "list leases"))
            self._deliver([msgspec.convert(item, _Lease) for item in body.get("items") or []])
            version, more = body["metadata"]["resourceVersion"], body["metadata"].get("continue") or ""
            if not more:
                self._listener.on_watch_restored()
                self.listed.set()
                return str(version)

    async def _watch(self, version: str) -> str:
        """Read one watch to its end; the version to go on from, or nothing when it must be listed anew."""
        query = list_watch.watch_from(version) | {"labelSelector": LEASE_LABEL}
        answer = await send(self._api, "GET", self._path, query=query, seconds=list_watch.WATCH_SECONDS + READ_TIMEOUT)
        rest = b""
        async for chunk in _chunks(answer):
            *lines, rest = (rest + chunk).split(b"\n")
            events = [self._decode(line) for line in lines if line]
            if any(event.type == "ERROR" for event in events):
                return ""
            self._deliver([event.object for event in events if event.type in {"ADDED", "MODIFIED"}])
            version = events[-1].object.metadata.resourceVersion if events else version
            if len(chunk) < BACKLOG_BYTES:  # of more there is a backlog: no time to pause
                await _pause(answer)
        return version if answer.status < 400 else ""  # noqa: PLR2004 - HTTP's own number.

    def _deliver(self, leases: Sequence[_Lease]) -> None:
        """The heartbeats first: the canary says that everything before it was brought."""
        beats = [_heartbeat(lease, lease.spec) for lease in leases if lease.spec]
        self._listener.on_heartbeats([beat for beat in beats if beat])
        for lease in leases:
            if lease.metadata.name == PROBE_LEASE and lease.spec and lease.spec.renewTime:
                self._listener.on_probe_received(lease.spec.renewTime)


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


async def _pause(answer: Any) -> None:
    """Let lines gather before the socket is read again: one look at many lines."""
    transport = answer.connection.transport if answer.connection else None
    if transport:
        if hasattr(transport, "set_read_buffer_limits"):  # TLS: else each record still wakes the loop
            transport.set_read_buffer_limits(high=1)
        transport.pause_reading()
    await asyncio.sleep(_BATCH_PAUSE_SECONDS)
    if transport and not transport.is_closing():
        transport.resume_reading()


async def _chunks(answer: Any) -> AsyncIterator[bytes]:
    """What the stream brings, until it ends or is quiet for too long; nothing of an answer that is an error."""
    if answer.status >= 400:  # noqa: PLR2004 - HTTP's own number.
        answer.close()
        return
    try:
        async for chunk in list_watch.chunks(answer, _QUIET_SECONDS):
            yield chunk
    except TimeoutError:
        log.info("the lease stream was quiet; it is opened anew", seconds=_QUIET_SECONDS)
