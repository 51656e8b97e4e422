"""Reads of the Kubernetes API that need no watch. Must not decide or write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api import meta
from hotpool.core.model import Kind
from hotpool.kube import node_json
from hotpool.kube.client import ApiUnavailable, ClusterTarget, connected
from hotpool.kube.rest import CONNECTION_ERRORS, error_text, path, read, request, send

Json = dict[str, Any]

READ_TIMEOUT: Final = 10.0
_PING_TIMEOUT: Final = 2.0
SYSTEM_NAMESPACE: Final = "kube-system"
_PAGE: Final = 500
_LEASES: Final = "coordination.k8s.io/v1"
_ELECTION: Final = f"metadata.name={meta.ELECTION_LEASE}"
_EVENTS: Final = "events.k8s.io/v1"
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404


class Reader:
    """Reads of the custom resources and their definitions, of v1 Nodes, and of the Leases and Events of nodes."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def ping(self) -> None:
        """Return if the API server responds. Raises ApiUnavailable."""
        try:
            await request(self._api, "GET", "/version", seconds=_PING_TIMEOUT)
        except (ApiException, *CONNECTION_ERRORS) as error:
            raise _unavailable("get", "", "version", error) from None

    async def leases(self) -> list[Json]:
        """Return the Leases of nodes. Raises ApiUnavailable."""
        return [lease async for lease in self.each_of(_LEASES, "leases", labelSelector=meta.LEASE_LABEL)]

    async def events(self, node: str) -> list[Json]:
        """Return the Events about one NodeCapability. Raises ApiUnavailable."""
        regarding = f"regarding.kind=NodeCapability,regarding.name={node}"
        return [event async for event in self.each_of(_EVENTS, "events", fieldSelector=regarding)]

    def each(self, kind: Kind, *, labels: str | None = None) -> AsyncIterator[Json]:
        """Yield every object of a kind (with these labels) of one snapshot. Raises ApiUnavailable, also half-way.

        At most one page is in memory: all slices of a large fleet are a gigabyte of dicts.
        """
        if kind is Kind.KUBE_NODE:
            return self._each_kube_node()
        return self.each_of(meta.API_VERSION, kind.value, **({"labelSelector": labels} if labels else {}))

    async def get(self, kind: Kind, name: str) -> Json | None:
        """Return one object, or None if the API server returns 404. Raises ApiUnavailable."""
        if kind is Kind.KUBE_NODE:
            return await self._kube_node(name)
        url_path = path(meta.API_VERSION, "namespaces", self._namespace, kind.value, name)
        return await self._get(url_path, meta.GROUP, f"{kind.value}/{name}")

    async def _get(self, url_path: str, group: str, resource: str) -> Json | None:
        try:
            body = await request(self._api, "GET", url_path, seconds=READ_TIMEOUT)
        except (ApiException, *CONNECTION_ERRORS) as error:
            if isinstance(error, ApiException) and error.status == _NOT_FOUND:
                return None
            raise _unavailable("get", group, resource, error) from None
        return dict(body)

    async def _kube_node(self, name: str) -> Json | None:
        try:
            response = await send(self._api, "GET", path("v1", "nodes", name), seconds=READ_TIMEOUT)
            body = await read_body(response, f"get nodes/{name}")
        except CONNECTION_ERRORS as error:
            raise _unavailable("get", "", f"nodes/{name}", error) from None
        except ApiUnavailable as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return node_json.node(body)

    async def _each_kube_node(self) -> AsyncIterator[Json]:
        async for nodes, _ in kube_nodes(self._api):
            for node in nodes:
                yield node

    async def follows_nodes(self) -> bool:
        """Return True if the current or last leader follows v1 Nodes, by its election Lease. Raises ApiUnavailable."""
        leases = [item async for item in self.each_of(_LEASES, "leases", fieldSelector=_ELECTION)]
        values = [(item["metadata"].get("annotations") or {}).get(meta.KUBE_NODES_ANNOTATION) for item in leases]
        return values == ["true"]

    async def schema_revision(self, kind: Kind) -> int | None:
        """Return the revision of the installed CRD, 0 if it states none, None if there is no such CRD."""
        name = f"{kind.value}.{meta.GROUP}"
        url_path = path("apiextensions.k8s.io/v1", "customresourcedefinitions", name)
        definition = await self._get(url_path, "apiextensions.k8s.io", f"customresourcedefinitions/{name}")
        if definition is None:
            return None
        annotations = definition["metadata"].get("annotations") or {}
        revision: str = annotations.get(meta.SCHEMA_REVISION_ANNOTATION, "0")
        return int(revision) if revision.isdecimal() else 0

    async def namespace_exists(self) -> bool:
        """Return False if the cluster lacks the namespace. True without the right to know. Raises ApiUnavailable."""
        try:
            url_path = path("v1", "namespaces", self._namespace)
            return await self._get(url_path, "", f"namespaces/{self._namespace}") is not None
        except ApiUnavailable as error:
            if error.status == _FORBIDDEN:
                return True  # the chart grants no such right: there, the operator's namespace is that of its pod
            raise

    async def cluster_id(self) -> str:
        """Return the uid of the namespace kube-system, which identifies the cluster. Raises ApiUnavailable."""
        try:
            url_path = path("v1", "namespaces", SYSTEM_NAMESPACE)
            body = await request(self._api, "GET", url_path, seconds=READ_TIMEOUT)
        except (ApiException, *CONNECTION_ERRORS) as error:
            raise _unavailable("get", "", f"namespaces/{SYSTEM_NAMESPACE}", error) from None
        return str(body["metadata"]["uid"])

    async def each_of(self, group_version: str, plural: str, **selectors: str) -> AsyncIterator[Json]:
        """Yield all objects of one resource in the namespace, page by page. Raises ApiUnavailable, also half-way."""
        url_path = path(group_version, "namespaces", self._namespace, plural)
        more = ""
        while True:
            query = selectors | {"limit": str(_PAGE)} | ({"continue": more} if more else {})
            try:
                page = await request(self._api, "GET", url_path, query=query, seconds=READ_TIMEOUT)
            except (ApiException, *CONNECTION_ERRORS) as error:
                raise _unavailable("list", group_version.partition("/")[0], plural, error) from None
            more = page["metadata"].get("continue") or ""
            for item in page["items"]:
                yield item
            if not more:
                return


@asynccontextmanager
async def open_reader(target: ClusterTarget) -> AsyncIterator[Reader]:
    """Open a Reader with its own connection. Raises ApiUnavailable if the kubeconfig is unusable."""
    async with connected(target) as connection:
        yield Reader(connection.api, target.namespace)


async def kube_nodes(api: ApiClient) -> AsyncIterator[tuple[list[Json], str]]:
    """Yield pages of v1 Nodes, reduced by `node_json`, with the version of the list. Raises ApiUnavailable."""
    more = ""
    while True:
        query = {"limit": str(_PAGE)} | ({"continue": more} if more else {})
        try:
            response = await send(api, "GET", path("v1", "nodes"), query=query, seconds=READ_TIMEOUT)
            nodes, version, more = node_json.page(await read_body(response, "list nodes"))
        except CONNECTION_ERRORS as error:
            raise _unavailable("list", "", "nodes", error) from None
        yield nodes, version
        if not more:
            return


async def read_body(response: aiohttp.ClientResponse, operation: str) -> bytes:
    """Return the body of a response. Raises ApiUnavailable for an error status; its text names the `operation`."""
    try:
        return await read(response)
    except ApiException as error:
        raise ApiUnavailable(f"cannot {operation}: {error_text(error)}", error.status, operation) from None


def _unavailable(verb: str, group: str, resource: str, error: BaseException) -> ApiUnavailable:
    status = error.status if isinstance(error, ApiException) else None
    return ApiUnavailable(f"cannot {verb} {resource}: {error_text(error)}", status, f"{verb} {resource} ({group})")
