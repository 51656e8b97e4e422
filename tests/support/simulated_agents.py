"""Simulated agents on a real API server: reports and Leases as agents write them, many in one process.

Other tests cover the behaviour of real agents.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from kubernetes.aio import client, config

from hotpool.api.meta import LEASE_LABEL, LEASE_PREFIX, timestamp
from localfleet.fleet import GROUP

T = TypeVar("T")

_MERGE: Final = "application/merge-patch+json"
_CALL_SECONDS: Final = 60.0
_MAX_CONCURRENT: Final = 16


class SimulatedAgents:
    """Nodes whose Leases a thread renews each `interval` seconds, except for the silenced ones.

    `addresses`: node → address, at which its services have endpoints on ports from `first_port` up, in the order of the
    types.
    """

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        interval: int,
        *,
        addresses: Mapping[str, str] | None = None,
        first_port: int = 6000,
    ) -> None:
        self._addresses = addresses or {}
        self._first_port = first_port
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._interval = interval
        self._ready: dict[str, dict[str, bool]] = {}
        self._sequence: dict[str, int] = {}
        self._silent: set[str] = set()
        self.reported: dict[str, list[tuple[float, dict[str, bool]]]] = {}
        """Node → (monotonic seconds before the request, type → ready) of each report."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agents", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._connect())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    def create(self, names: Iterable[str], types: Sequence[str]) -> None:
        """Create nodes with a Running service of each type, and heartbeats from now on."""
        self._call(self._run_all(partial(self._create, name, types) for name in names))

    def report(self, name: str, **ready: bool) -> None:
        """Report types of a node as ready or not."""
        self._call(self._report(name, ready))

    def report_at_rate(self, changes: Sequence[tuple[str, dict[str, bool]]], per_second: float) -> Future[None]:
        """Send reports one after the other in the background, so many per second."""
        return asyncio.run_coroutine_threadsafe(self._report_at_rate(changes, per_second), self._loop)

    def silence(self, names: Iterable[str]) -> None:
        """Stop the heartbeats of nodes."""
        self._silent |= set(names)

    def resume(self, names: Iterable[str]) -> None:
        """Resume the heartbeats of nodes."""
        self._silent -= set(names)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    async def _connect(self) -> None:
        self._api: Any = await config.new_client_from_config(str(self._kubeconfig))
        self._objects = client.CustomObjectsApi(self._api)
        self._leases = client.CoordinationV1Api(self._api)
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)
        self._heartbeats = asyncio.create_task(self._renew_all())

    async def _disconnect(self) -> None:
        if self._heartbeats.done():
            self._heartbeats.result()
        self._heartbeats.cancel()
        await asyncio.gather(self._heartbeats, return_exceptions=True)
        await self._api.close()

    async def _run_all(self, work: Iterable[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        async def one(item: Callable[[], Coroutine[Any, Any, None]]) -> None:
            async with self._slots:
                await item()

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
        if address := self._addresses.get(name):
            content["addresses"] = [{"ip": address, "source": "Route"}]
            for port, item in enumerate(content["services"], self._first_port):
                item["endpoint"] = {"addresses": [], "port": port}
        where = (*GROUP, self._namespace, "nodecapabilities", name)
        await self._objects.patch_namespaced_custom_object_status(
            *where, {"status": {"report": content}}, _content_type=_MERGE
        )

    async def _report_at_rate(self, changes: Sequence[tuple[str, dict[str, bool]]], per_second: float) -> None:
        began = time.monotonic()
        for number, (name, ready) in enumerate(changes):
            await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
            await self._report(name, ready)

    async def _renew_all(self) -> None:
        while True:
            began = time.monotonic()
            await self._run_all(partial(self._renew, name) for name in self._ready if name not in self._silent)
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
        {"id": type_, "type": type_, "state": "Running" if runs else "Stopped"} for type_, runs in ready.items()
    ]
    capabilities = [
        {"type": type_, "ready": runs, "reason": None if runs else "Stopped", "services": [type_] if runs else []}
        for type_, runs in ready.items()
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
        "readyTypes": ",".join(sorted(type_ for type_, runs in ready.items() if runs)),
        "services": services,
        "capabilities": capabilities,
    }
