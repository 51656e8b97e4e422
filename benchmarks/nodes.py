"""Nodes as their agents write them, all from this process: a report with one service, and a renewed Lease."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any, Final

from kubernetes.aio import client

from hotpool.api.meta import LEASE_LABEL, LEASE_PREFIX, timestamp
from localfleet.fleet import GROUP

INTERVAL: Final = 15
_AT_ONCE: Final = 8
_MERGE: Final = "application/merge-patch+json"


class Nodes:
    """`number` nodes called node-0, node-1, and so on; `type_of` returns the type of each node's service."""

    def __init__(self, api: client.ApiClient, namespace: str, number: int, type_of: Callable[[int], str]) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._leases = client.CoordinationV1Api(api)
        self._namespace = namespace
        self._number = number
        self._type_of = type_of
        self._sequence = 1
        self._beaten = 0

    async def create(self) -> None:
        """Create all nodes, ready. Limits concurrency: all at once would stall a local API server for seconds."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def create(node: int) -> None:
            async with room:
                await self._create(node)

        await asyncio.gather(*(create(node) for node in range(self._number)))

    async def _create(self, node: int) -> None:
        where = (*GROUP, self._namespace, "nodecapabilities")
        kind = {"apiVersion": "/".join(GROUP), "kind": "NodeCapability"}
        await self._objects.create_namespaced_custom_object(*where, {**kind, "metadata": {"name": f"node-{node}"}})
        await self.report(node, ready=True)
        spec = {"holderIdentity": f"instance-{node}/1", "leaseDurationSeconds": 3 * INTERVAL, "renewTime": timestamp()}
        meta = {"name": f"{LEASE_PREFIX}node-{node}", "labels": {LEASE_LABEL: "true"}}
        lease: Any = {"metadata": meta, "spec": spec}
        await self._leases.create_namespaced_lease(self._namespace, lease)

    async def report(self, node: int, *, ready: bool) -> None:
        """Report the node's service as running or stopped."""
        self._sequence += 1
        body = {"status": {"report": _report(node, self._type_of(node), self._sequence, ready=ready)}}
        where = (*GROUP, self._namespace, "nodecapabilities", f"node-{node}")
        await self._objects.patch_namespaced_custom_object_status(*where, body, _content_type=_MERGE)

    async def beat(self) -> None:
        """Renew every Lease once per interval, spread evenly, until cancelled; the next call continues there.

        Several workers, so that a slow response delays no other renewal.
        """
        async with asyncio.TaskGroup() as group:
            for worker in range(_AT_ONCE):
                group.create_task(self._renew_in_turn(worker))

    async def _renew_in_turn(self, worker: int) -> None:
        started = time.monotonic()
        for number in itertools.count(worker, _AT_ONCE):
            await asyncio.sleep(max(0.0, started + number * INTERVAL / self._number - time.monotonic()))
            self._beaten += 1
            name = f"{LEASE_PREFIX}node-{self._beaten % self._number}"
            body = {"spec": {"renewTime": timestamp()}}
            await self._leases.patch_namespaced_lease(name, self._namespace, body, _content_type=_MERGE)


def address(node: int) -> str:
    """Return the address of a node, in 10.0.0.0/8."""
    return f"10.1.{node // 250}.{node % 250 + 1}"


def _report(node: int, type_: str, sequence: int, *, ready: bool) -> dict[str, Any]:
    state, reason = ("Running", None) if ready else ("Stopped", "Stopped")
    return {
        "schemaVersion": 1,
        "agentVersion": "bench",
        "instance": f"instance-{node}",
        "session": "session",
        "epoch": 1,
        "sequence": sequence,
        "time": timestamp(),
        "intervalSeconds": INTERVAL,
        "summary": "1/1" if ready else "0/1",
        "addresses": [{"ip": address(node), "source": "Route"}],
        "services": [{"id": "service", "type": type_, "state": state, "endpoint": {"addresses": [], "port": 6000}}],
        "capabilities": [{"type": type_, "ready": ready, "reason": reason, "services": ["service"] if ready else []}],
    }
