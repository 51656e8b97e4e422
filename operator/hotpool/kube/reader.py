"""Reads of the Kubernetes API that need no watch. Must not decide or write."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api import meta
from hotpool.core.model import Identity, Kind
from hotpool.kube import node_json
from hotpool.kube.client import ApiUnavailable, ClusterTarget, connected
from hotpool.kube.decode import identify_json
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


class _ListMetadata(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815 - the wire's name.
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw]


_PAGE_OF_LIST: Final = msgspec.json.Decoder(_Page)


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
        return [lease async for lease in self._each(_LEASES, "leases", labelSelector=meta.LEASE_LABEL)]

    async def events(self, node: str) -> list[Json]:
        """Return the Events about one NodeCapability. Raises ApiUnavailable."""
        regarding = f"regarding.kind=NodeCapability,regarding.name={node}"
        return [event async for event in self._each(_EVENTS, "events", fieldSelector=regarding)]

    async def each(self, kind: Kind, *, labels: str | None = None) -> AsyncIterator[Json]:
        """Yield every object of a kind (with these labels) of one snapshot. Raises ApiUnavailable, also half-way.

        At most one page is in memory: all slices of a large fleet are a gigabyte of dicts.
        """
        async for item in self._each_raw(kind, **({"labelSelector": labels} if labels else {})):
            yield _decoded(kind, item)

    async def each_changed(
        self, kind: Kind, known: Mapping[str, Identity]
    ) -> AsyncIterator[tuple[tuple[str, Identity] | None, Json | None]]:
        """Yield name and identity (None: invalid) of every object, and the object unless `known` has this identity.

        `known` may change meanwhile. An object that is known is not decoded. Raises ApiUnavailable, also half-way.
        """
        async for item in self._each_raw(kind):
            found = identify_json(item)
            is_known = found is not None and known.get(found[0]) == found[1]
            yield found, None if is_known else _decoded(kind, item)

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

    async def follows_nodes(self) -> bool:
        """Return True if the current or last leader follows v1 Nodes, by its election Lease. Raises ApiUnavailable."""
        leases = [item async for item in self._each(_LEASES, "leases", fieldSelector=_ELECTION)]
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

    async def _each(self, group_version: str, plural: str, **selectors: str) -> AsyncIterator[Json]:
        """Yield all objects of one resource in the namespace, page by page."""
        async for items, _ in pages(self._api, group_version, plural, self._namespace, **selectors):
            for item in items:
                yield msgspec.json.decode(item)

    async def _each_raw(self, kind: Kind, **selectors: str) -> AsyncIterator[msgspec.Raw]:
        of_nodes = kind is Kind.KUBE_NODE
        where = ("v1", "nodes", None) if of_nodes else (meta.API_VERSION, kind.value, self._namespace)
        async for items, _ in pages(self._api, *where, **selectors):
            for item in items:
                yield item


@asynccontextmanager
async def open_reader(target: ClusterTarget) -> AsyncIterator[Reader]:
    """Open a Reader with its own connection. Raises ApiUnavailable if the kubeconfig is unusable."""
    async with connected(target) as connection:
        yield Reader(connection.api, target.namespace)


async def pages(
    api: ApiClient, group_version: str, plural: str, namespace: str | None, **selectors: str
) -> AsyncIterator[tuple[list[msgspec.Raw], str]]:
    """Yield the pages of one list: its objects, not decoded, and the version of the list. Raises ApiUnavailable."""
    scope = ("namespaces", namespace) if namespace else ()
    more = ""
    while True:
        query = selectors | {"limit": str(_PAGE)} | ({"continue": more} if more else {})
        try:
            response = await send(api, "GET", path(group_version, *scope, plural), query=query, seconds=READ_TIMEOUT)
            page = _PAGE_OF_LIST.decode(await read(response))
        except (ApiException, msgspec.DecodeError, *CONNECTION_ERRORS) as error:
            raise _unavailable("list", group_version.rpartition("/")[0], plural, error) from None
        yield page.items, page.metadata.resourceVersion
        if not (more := page.metadata.continue_):
            return


async def read_body(response: aiohttp.ClientResponse, operation: str) -> bytes:
    """Return the body of a response. Raises ApiUnavailable for an error status; its text names the `operation`."""
    try:
        return await read(response)
    except ApiException as error:
        raise ApiUnavailable(f"cannot {operation}: {error_text(error)}", error.status, operation) from None


def _unavailable(verb: str, group: str, resource: str, error: BaseException) -> ApiUnavailable:
    status = error.status if isinstance(error, ApiException) else None
    request = f"{verb} {resource} ({group})" if group else f"{verb} {resource}"
    return ApiUnavailable(f"cannot {verb} {resource}: {error_text(error)}", status, request)


def _decoded(kind: Kind, item: msgspec.Raw) -> Json:
    body: Json = node_json.node(item) if kind is Kind.KUBE_NODE else msgspec.json.decode(item)
    return body
