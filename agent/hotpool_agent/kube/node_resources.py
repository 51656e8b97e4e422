"""The node's NodeCapability, Lease and Event at the API server, and the node's pods (requirements B7, B8). I/O.

Knows paths and bodies. Transport and errors belong to `http_client`. Must not decide by the content of a response.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final

from hotpool.api.meta import API_VERSION, LEASE_LABEL, LEASE_PREFIX, timestamp
from hotpool_agent.json_access import Json, mapping
from hotpool_agent.kube.errors import ExpiredError, MissingError, UnavailableError
from hotpool_agent.kube.http_client import KubeHttpClient
from hotpool_agent.kube.responses import Listing, WatchEvent

_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_STAMPS: Final = ("session", "epoch", "sequence")


class NodeResources:
    """Objects and pods of one node. Every method raises KubeError."""

    def __init__(self, client: KubeHttpClient, node: str) -> None:
        self.client = client
        self.node = node

    async def ensure_capability(self) -> Json:
        """Return the node's NodeCapability; create it if needed, by an apply of metadata alone."""
        body = {"apiVersion": API_VERSION, "kind": "NodeCapability", "metadata": {"name": self.node}}
        return await self.client.patch(self._capability(), body, _APPLY)

    async def read_capability(self) -> Json | None:
        """Return the node's NodeCapability, or None if it does not exist."""
        try:
            return await self.client.get(self._capability())
        except MissingError:
            return None

    async def write_report(self, report: Json) -> None:
        """Replace `status.report` by merge patch (requirement B7). `report` must have every key.

        Raises UnavailableError if the response does not show the report: then it may be stored or not.
        """
        patch = {"status": {"report": report}}
        response = await self.client.patch(f"{self._capability()}/status", patch, _MERGE)
        stored = mapping(mapping(response.get("status")).get("report"))
        if any(stored.get(stamp) != report[stamp] for stamp in _STAMPS):
            raise UnavailableError(
                "the response does not contain the report that was sent; the CRD may be too old, or a proxy answered"
            )

    async def ensure_lease(self) -> None:
        """Create the node's Lease if needed, by an apply of metadata alone."""
        metadata = {"name": f"{LEASE_PREFIX}{self.node}", "labels": {LEASE_LABEL: "true"}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        await self.client.patch(self._lease(), body, _APPLY)

    async def renew_lease(self, holder: str, duration: int) -> None:
        """Renew the node's Lease for `duration` seconds. Raises MissingError if it does not exist."""
        spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": timestamp()}
        await self.client.patch(self._lease(), {"spec": spec}, _MERGE)

    async def lease_renew_time(self) -> str | None:
        """Return the Lease's renewTime, or None without a Lease."""
        try:
            lease = await self.client.get(self._lease())
        except MissingError:
            return None
        value: str | None = mapping(lease.get("spec")).get("renewTime")
        return value

    async def write_event(self, name: str, event: Json) -> None:
        """Create or replace an Event of core/v1."""
        await self.client.patch(f"/api/v1/namespaces/{self.client.namespace}/events/{name}", event, _APPLY)

    async def watch_capability(self) -> AsyncIterator[Json | None]:
        """Yield the NodeCapability now and after each change, None while it does not exist. Ends with the watch.

        Lists and watches only this name, so that a Role with resourceNames suffices.
        """
        query = {"fieldSelector": f"metadata.name={self.node}"}
        listing = await self.client.list(self._capabilities(), query)
        yield listing.items[0] if listing.items else None
        try:
            async with self.client.watch(self._capabilities(), query, listing.version) as events:
                async for kind, item in events:
                    yield None if kind == "DELETED" else item
        except ExpiredError:
            return

    async def list_pods(self, namespace: str, label: str) -> Listing:
        """Return the pods of this node in the namespace that have the label."""
        return await self.client.list(_pods(namespace), self._of_this_node(label))

    def watch_pods(
        self, namespace: str, label: str, version: str, seconds: int
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """Watch the same pods from the version for `seconds`, with bookmarks. Raises as `KubeHttpClient.watch`."""
        query = self._of_this_node(label) | {"allowWatchBookmarks": "true"}
        return self.client.watch(_pods(namespace), query, version, seconds)

    def _of_this_node(self, label: str) -> dict[str, str]:
        return {"fieldSelector": f"spec.nodeName={self.node}", "labelSelector": label}

    def _capabilities(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.client.namespace}/nodecapabilities"

    def _capability(self) -> str:
        return f"{self._capabilities()}/{self.node}"

    def _lease(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.client.namespace}/leases/{LEASE_PREFIX}{self.node}"


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"
