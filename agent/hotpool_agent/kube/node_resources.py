"""The node's NodeCapability and Lease at the API server, and the pods of the node (requirements B7, B8). I/O.

Knows paths and bodies; how a request travels and what its failure is called is the matter of `door`, what to make of an
answer that of the callers.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from hotpool.api.meta import API_VERSION, LEASE_LABEL, LEASE_PREFIX, timestamp
from hotpool_agent.kube.credentials import Target
from hotpool_agent.kube.errors import ExpiredError, MissingError, UnavailableError
from hotpool_agent.kube.http_client import WATCH_SECONDS, Event, KubeHttpClient, KubeRequest, Listing, part

_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_STAMPS: Final = ("session", "epoch", "sequence")

Json = dict[str, Any]


class NodeResources:
    """One node's two objects, and its pods. Open it with `connect`; times in seconds."""

    def __init__(self, target: Target, node: str, seconds: float) -> None:
        self.node = node
        self._client = KubeHttpClient(target, seconds)

    @property
    def namespace(self) -> str:
        """The namespace of the fleet."""
        return self._client.namespace

    async def connect(self) -> None:
        """Read the configuration. Raises TargetError."""
        await self._client.open()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def ensure_capability(self) -> Json:
        """The node's NodeCapability, created if need be, by an apply of metadata alone."""
        body = {"apiVersion": API_VERSION, "kind": "NodeCapability", "metadata": {"name": self.node}}
        return await self._client.request(KubeRequest("PATCH", self._capability(), body, _APPLY))

    async def read_capability(self) -> Json | None:
        """The node's NodeCapability, or None."""
        try:
            return await self._client.request(KubeRequest("GET", self._capability(), query={}))
        except MissingError:
            return None

    async def write_report(self, report: Json) -> None:
        """Replace `status.report` by merge patch; `report` carries every key (requirement B7).

        An answer that does not show the report leaves open whether it is stored.
        """
        patch = {"status": {"report": report}}
        answer = await self._client.request(KubeRequest("PATCH", f"{self._capability()}/status", patch, _MERGE))
        stored = part(part(answer, "status"), "report")
        if any(stored.get(stamp) != report[stamp] for stamp in _STAMPS):
            raise UnavailableError("the answer does not show the report that was sent")

    async def ensure_lease(self) -> None:
        """Create the node's Lease if need be, by an apply of metadata alone."""
        metadata = {"name": f"{LEASE_PREFIX}{self.node}", "labels": {LEASE_LABEL: "true"}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        await self._client.request(KubeRequest("PATCH", self._lease(), body, _APPLY))

    async def renew_lease(self, holder: str, duration: int) -> None:
        """One heartbeat. Raises MissingError if there is no Lease."""
        spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": timestamp()}
        await self._client.request(KubeRequest("PATCH", self._lease(), {"spec": spec}, _MERGE))

    async def lease_renew_time(self) -> str | None:
        """The Lease's renewTime; None without a Lease."""
        try:
            lease = await self._client.request(KubeRequest("GET", self._lease(), query={}))
        except MissingError:
            return None
        value: str | None = part(lease, "spec").get("renewTime")
        return value

    async def write_event(self, name: str, event: Json) -> None:
        """Create or replace an Event of core/v1."""
        path = f"/api/v1/namespaces/{self.namespace}/events/{name}"
        await self._client.request(KubeRequest("PATCH", path, event, _APPLY))

    async def watch_capability(self) -> AsyncIterator[Json | None]:
        """The NodeCapability as it is now and after each change; None: it is not there. Ends when the stream ends.

        Lists and watches this one name only, so that a Role with resourceNames suffices.
        """
        query = {"fieldSelector": f"metadata.name={self.node}"}
        listing = await self._client.list(KubeRequest("GET", self._capabilities(), query=query))
        yield listing.items[0] if listing.items else None
        query |= {"watch": "true", "resourceVersion": listing.version, "timeoutSeconds": str(WATCH_SECONDS)}
        try:
            async with self._client.watching(KubeRequest("GET", self._capabilities(), query=query)) as events:
                async for kind, item in events:
                    yield None if kind == "DELETED" else item
        except ExpiredError:
            return

    async def list_pods(self, namespace: str, label: str) -> Listing:
        """The pods of this node in the namespace that have the label. Raises Problem."""
        return await self._client.list(KubeRequest("GET", _pods(namespace), query=self._of_this_node(label)))

    def watching_pods(
        self, namespace: str, label: str, version: str, seconds: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """What happens to those pods after the version, and bookmarks, for so many seconds (see `Door.watching`)."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        query |= {"allowWatchBookmarks": "true"} | self._of_this_node(label)
        return self._client.watching(KubeRequest("GET", _pods(namespace), query=query))

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
