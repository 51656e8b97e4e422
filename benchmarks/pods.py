"""Services and their pods on a simulated Node, as a kubelet would report them."""

import asyncio
import json
from typing import Any, Final

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api.meta import timestamp

NODE: Final = "simulated"
_BEAT_SECONDS: Final = 10.0
_LEASE_SECONDS: Final = 40
_AT_ONCE: Final = 16
_WAIT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_MERGE: Final = "application/merge-patch+json"


class Pods:
    """Services called service-0, service-1, ..., each with pods called pod-<service>-<n>."""

    def __init__(self, api: client.ApiClient, namespace: str, services: int, each: int) -> None:
        self._core = client.CoreV1Api(api)
        self._leases = client.CoordinationV1Api(api)
        self._discovery = client.DiscoveryV1Api(api)
        self._namespace = namespace
        self._services = services
        self._each = each

    async def create(self) -> None:
        """Create all objects, ready, and wait until the EndpointSlices show it."""
        lease = {"holderIdentity": NODE, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": timestamp()}
        await self._leases.create_namespaced_lease("kube-node-lease", _object(NODE, spec=lease))
        await self._core.create_node(_object(NODE))
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated"}
        await self._core.patch_node_status(NODE, {"status": {"conditions": [ready]}}, _content_type=_STRATEGIC)
        await self._until_account()
        room = asyncio.Semaphore(_AT_ONCE)
        wanted = [(service, number) for service in range(self._services) for number in range(self._each)]
        await asyncio.gather(*(self._service(number) for number in range(self._services)))
        await asyncio.gather(*(self._pod(*which, room) for which in wanted))
        async with asyncio.timeout(_WAIT_SECONDS):
            await self._until_endpoints(len(wanted))

    async def ready(self, number: int, *, ready: bool) -> None:
        """Set condition Ready of a Service's first pod, as kubelet does when its probe changes."""
        await self._status(f"pod-{number}-0", {"conditions": _conditions(ready=ready)})

    async def beat(self) -> None:
        """Renew the Node's Lease until cancelled."""
        while True:
            body = {"spec": {"renewTime": timestamp()}}
            await self._leases.patch_namespaced_lease(NODE, "kube-node-lease", body, _content_type=_MERGE)
            await asyncio.sleep(_BEAT_SECONDS)

    async def listing(self, **more: Any) -> Any:
        """List EndpointSlices, also as a watch."""
        return await self._discovery.list_namespaced_endpoint_slice_without_preload_content(self._namespace, **more)

    async def _until_account(self) -> None:
        """Wait for the namespace's service account, which a controller makes and a pod needs."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                try:
                    await self._core.read_namespaced_service_account("default", self._namespace)
                except ApiException as error:
                    if error.status != 404:
                        raise
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    return

    async def _service(self, number: int) -> None:
        spec = {"selector": {"app": f"app-{number}"}, "ports": [{"port": 80}], "clusterIP": "None"}
        await self._core.create_namespaced_service(self._namespace, _object(f"service-{number}", spec=spec))

    async def _pod(self, service: int, number: int, room: asyncio.Semaphore) -> None:
        name = f"pod-{service}-{number}"
        spec = {
            "nodeName": NODE,
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", "image": "simulated"}],
        }
        address = f"10.{service}.{number // 200}.{number % 200 + 1}"
        async with room:
            body = _object(name, spec=spec, labels={"app": f"app-{service}"})
            await self._core.create_namespaced_pod(self._namespace, body)
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
            await self._status(name, {**status, "conditions": _conditions(ready=True)})

    async def _status(self, name: str, status: dict[str, Any]) -> None:
        await self._core.patch_namespaced_pod_status(
            name, self._namespace, {"status": status}, _content_type=_STRATEGIC
        )

    async def _until_endpoints(self, number: int) -> None:
        """Wait until the EndpointSlices have the expected number of ready pods."""
        while True:
            answer = await self.listing()
            items = json.loads(await answer.read())["items"]
            endpoints = [endpoint for item in items for endpoint in item["endpoints"] or []]
            if sum(endpoint["conditions"]["ready"] for endpoint in endpoints) == number:
                return
            await asyncio.sleep(_POLL_SECONDS)


def _conditions(*, ready: bool) -> list[dict[str, str]]:
    status = "True" if ready else "False"
    return [
        {"type": kind, "status": status, "lastTransitionTime": timestamp()} for kind in ("Ready", "ContainersReady")
    ]


def _object(name: str, *, labels: dict[str, str] | None = None, **more: Any) -> Any:
    return {"metadata": {"name": name, "labels": labels or {}}, **more}
