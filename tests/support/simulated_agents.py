"""Made-up nodes on a real API server: reports and Leases as agents write them, many in one process.

What an agent does is tested with real agents elsewhere.
"""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from kubernetes.aio import client, config

from hotpool.api.meta import LEASE_LABEL, LEASE_PREFIX, timestamp
from localfleet.fleet import GROUP

T = TypeVar("T")

_MERGE: Final = "application/merge-patch+json"
_CALL_SECONDS: Final = 60.0
_AT_ONCE: Final = 16


class Puppets:
    """Nodes that beat each `interval` seconds from a thread, but for those told to be silent."""

    def __init__(self, kubeconfig: Path, namespace: str, interval: int) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._interval = interval
        self._ready: dict[str, dict[str, bool]] = {}
        self._sequence: dict[str, int] = {}
        self._silent: set[str] = set()
        self.reported: dict[str, list[tuple[float, dict[str, bool]]]] = {}
        """Node → when which readiness of types was sent (monotonic seconds, before the request)."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="puppets", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    def create(self, names: Iterable[str], types: Sequence[str]) -> None:
        """Nodes with a Running service of each type, which beat from now on."""
        self._call(self._together(self._create(name, types) for name in names))

    def report(self, name: str, **ready: bool) -> None:
        """The node's types become ready or not."""
        self._call(self._report(name, ready))

    def storm(self, changes: Sequence[tuple[str, dict[str, bool]]], per_second: float) -> Future[None]:
        """Reports one after the other at a pace, in the background."""
        return asyncio.run_coroutine_threadsafe(self._storm(changes, per_second), self._loop)

    def silence(self, names: Iterable[str]) -> None:
        """These beat no more."""
        self._silent |= set(names)

    def beat_again(self, names: Iterable[str]) -> None:
        """These go on beating."""
        self._silent -= set(names)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    async def _begin(self) -> None:
        self._api: Any = await config.new_client_from_config(str(self._kubeconfig))
        self._objects = client.CustomObjectsApi(self._api)
        self._leases = client.CoordinationV1Api(self._api)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._beating = asyncio.create_task(self._beat())

    async def _end(self) -> None:
        if self._beating.done():
            self._beating.result()
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        await self._api.close()

    async def _together(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        async def one(item: Coroutine[Any, Any, None]) -> None:
            async with self._room:
                await item

        await asyncio.gather(*(one(item) for item in work))

    async def _create(self, name: str, types: Sequence[str]) -> None:
        where = (*GROUP, self._namespace, "nodecapabilities")
        kind = {"apiVersion": "/".join(GROUP), "kind": "NodeCapability"}
        await self._objects.create_namespaced_custom_object(*where, {**kind, "metadata": {"name": name}})
        await self._report(name, dict.fromkeys(types, True))
        spec = {"holderIdentity": f"{name}/1", "leaseDurationSeconds": 3 * self._interval, "renewTime": timestamp()}
        metadata = {"name": f"{LEASE_PREFIX}{name}", "labels": {LEASE_LABEL: "true"}}
        lease: Any = {"metadata": metadata, "spec": spec}
        await self._leases.create_namespaced_lease(self._namespace, lease)

    async def _report(self, name: str, ready: dict[str, bool]) -> None:
        self._ready[name] = {**self._ready.get(name, {}), **ready}
        self._sequence[name] = self._sequence.get(name, 0) + 1
        self.reported.setdefault(name, []).append((time.monotonic(), dict(self._ready[name])))
        content = _report(name, self._sequence[name], self._ready[name], self._interval)
        where = (*GROUP, self._namespace, "nodecapabilities", name)
        await self._objects.patch_namespaced_custom_object_status(
            *where, {"status": {"report": content}}, _content_type=_MERGE
        )

    async def _storm(self, changes: Sequence[tuple[str, dict[str, bool]]], per_second: float) -> None:
        began = time.monotonic()
        for number, (name, ready) in enumerate(changes):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            await self._report(name, ready)

    async def _beat(self) -> None:
        while True:
            began = time.monotonic()
            await self._together(self._renew(name) for name in self._ready if name not in self._silent)
            await asyncio.sleep(max(0.0, began + self._interval - time.monotonic()))

    async def _renew(self, name: str) -> None:
        try:
            body = {"spec": {"renewTime": timestamp()}}
            where = (f"{LEASE_PREFIX}{name}", self._namespace, body)
            await self._leases.patch_namespaced_lease(*where, _content_type=_MERGE)
        except client.exceptions.ApiException as error:
            if error.status != 404:
                raise


def _report(name: str, sequence: int, ready: dict[str, bool], interval: int) -> dict[str, Any]:
    services = [
        {"id": type_, "type": type_, "state": "Running" if well else "Stopped"} for type_, well in ready.items()
    ]
    capabilities = [
        {"type": type_, "ready": well, "reason": None if well else "Stopped", "services": [type_] if well else []}
        for type_, well in ready.items()
    ]
    return {
        "schemaVersion": 1,
        "agentVersion": "test",
        "instance": name,
        "session": "session",
        "epoch": 1,
        "sequence": sequence,
        "time": timestamp(),
        "intervalSeconds": interval,
        "summary": f"{sum(ready.values())}/{len(ready)}",
        "services": services,
        "capabilities": capabilities,
    }
