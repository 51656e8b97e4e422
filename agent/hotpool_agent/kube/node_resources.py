"""The node's NodeCapability, Lease and Event at the API server, and the node's pods (requirements B7, B8). I/O.

Knows paths and bodies. Transport and errors belong to `http_client`. Must not decide by the content of a response.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from hotpool.api.meta import API_VERSION, LEASE_LABEL, LEASE_PREFIX, timestamp
from hotpool.common.kubeconfig import Target
from hotpool_agent.kube.errors import ExpiredError, MissingError, UnavailableError
from hotpool_agent.kube.http_client import WATCH_SECONDS, KubeHttpClient, KubeRequest, Listing, WatchEvent, object_at

_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_STAMPS: Final = ("session", "epoch", "sequence")

Json = dict[str, Any]


class NodeResources:
    """Objects and pods of one node. Must be opened with `connect`. `seconds`: time-out of one request."""

    def __init__(self, target: Target, node: str, seconds: float) -> None:
        self.node = node
        self._client = KubeHttpClient(target, seconds)

    @property
    def namespace(self) -> str:
        """The namespace of the fleet."""
        return self._client.namespace

    @property
    def credentials_problem(self) -> str | None:
        """Reason why the former credentials are in use, or None."""
        return self._client.credentials_problem

    async def connect(self) -> None:
        """Read the configuration. Raises TargetError."""
        await self._client.open()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def ensure_capability(self) -> Json:
        """Return the node's NodeCapability; create it if needed, by an apply of metadata alone."""
        body = {"apiVersion": API_VERSION, "kind": "NodeCapability", "metadata": {"name": self.node}}
        return await self._client.request(KubeRequest("PATCH", self._capability(), body, _APPLY))

    async def read_capability(self) -> Json | None:
        """Return the node's NodeCapability, or None if it does not exist."""
        try:
            return await self._client.request(KubeRequest("GET", self._capability(), query={}))
        except MissingError:
            return None

    async def write_report(self, report: Json) -> None:
        """Replace `status.report` by merge patch (requirement B7). `report` must have every key.

        Raises UnavailableError if the response does not show the report: then it may be stored or not.
        """
        patch = {"status": {"report": report}}
        response = await self._client.request(KubeRequest("PATCH", f"{self._capability()}/status", patch, _MERGE))
        stored = object_at(object_at(response, "status"), "report")
        if any(stored.get(stamp) != report[stamp] for stamp in _STAMPS):
            raise UnavailableError(
                "the response does not contain the report that was sent; the CRD may be too old, or a proxy answered"
            )

    async def ensure_lease(self) -> None:
        """Create the node's Lease if needed, by an apply of metadata alone."""
        metadata = {"name": f"{LEASE_PREFIX}{self.node}", "labels": {LEASE_LABEL: "true"}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        await self._client.request(KubeRequest("PATCH", self._lease(), body, _APPLY))

    async def renew_lease(self, holder: str, duration: int) -> None:
        """Renew the node's Lease for `duration` seconds. Raises MissingError if it does not exist."""
        spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": timestamp()}
        await self._client.request(KubeRequest("PATCH", self._lease(), {"spec": spec}, _MERGE))

    async def lease_renew_time(self) -> str | None:
        """Return the Lease's renewTime, or None without a Lease."""
        try:
            lease = await self._client.request(KubeRequest("GET", self._lease(), query={}))
        except MissingError:
            return None
        value: str | None = object_at(lease, "spec").get("renewTime")
        return value

    async def write_event(self, name: str, event: Json) -> None:
        """Create or replace an Event of core/v1."""
        path = f"/api/v1/namespaces/{self.namespace}/events/{name}"
        await self._client.request(KubeRequest("PATCH", path, event, _APPLY))

    async def watch_capability(self) -> AsyncIterator[Json | None]:
        """Yield the NodeCapability now and after each change, None while it does not exist. Ends with the watch.

        Lists and watches only this name, so that a Role with resourceNames suffices.
        """
        query = {"fieldSelector": f"metadata.name={self.node}"}
        listing = await self._client.list(KubeRequest("GET", self._capabilities(), query=query))
        yield listing.items[0] if listing.items else None
        query |= {"watch": "true", "resourceVersion": listing.version, "timeoutSeconds": str(WATCH_SECONDS)}
        try:
            async with self._client.watch(KubeRequest("GET", self._capabilities(), query=query)) as events:
                async for kind, item in events:
                    yield None if kind == "DELETED" else item
        except ExpiredError:
            return

    async def list_pods(self, namespace: str, label: str) -> Listing:
        """Return the pods of this node in the namespace that have the label. Raises KubeError."""
        return await self._client.list(KubeRequest("GET", _pods(namespace), query=self._of_this_node(label)))

    def watch_pods(
        self, namespace: str, label: str, version: str, seconds: int
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """Watch the same pods from the version for `seconds`, with bookmarks. Raises as `KubeHttpClient.watch`."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        query |= {"allowWatchBookmarks": "true"} | self._of_this_node(label)
        return self._client.watch(KubeRequest("GET", _pods(namespace), query=query))

    def _of_this_node(self, label: str) -> dict[str, str]:
        return {"fieldSelector": f"spec.nodeName={self.node}", "labelSelector": label}

    def _capabilities(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/nodecapabilities"

    def _capability(self) -> str:
        return f"{self._capabilities()}/{self.node}"

    def _lease(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{LEASE_PREFIX}{self.node}"


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"
