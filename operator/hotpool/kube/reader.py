"""Reads of the Kubernetes API that need no watch. Must not decide or write."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from kubernetes.aio.client import ApiClient

from hotpool.api import meta
from hotpool.core.model import Identity, Kind
from hotpool.kube.client import ApiUnavailable, asked, asked_if_present
from hotpool.kube.decode import identify_json
from hotpool.kube.node_json import NodeJson
from hotpool.kube.rest import path, request

Json = dict[str, Any]

READ_TIMEOUT: Final = 10.0
_PING_TIMEOUT: Final = 2.0
SYSTEM_NAMESPACE: Final = "kube-system"
_PAGE: Final = 500
_LEASES: Final = "coordination.k8s.io/v1"
_EVENTS: Final = "events.k8s.io/v1"
_REVIEWS: Final = "authorization.k8s.io/v1"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_FORBIDDEN: Final = 403


class _ListMetadata(msgspec.Struct):
    resourceVersion: str  # noqa: N815 - the wire's name.
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None


_PAGE_OF_LIST: Final = msgspec.json.Decoder(_Page).decode
_NODE: Final = msgspec.json.Decoder(NodeJson).decode


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads of the custom resources and their definitions, of v1 Nodes, and of the Leases and Events of nodes."""

    _api: ApiClient
    _namespace: str

    async def ping(self) -> None:
        """Return if the API server responds. Raises ApiUnavailable."""
        await asked(request(self._api, "GET", "/version", seconds=_PING_TIMEOUT), "get", "version")

    async def leases(self) -> list[Json]:
        """Return the Leases of nodes. Raises ApiUnavailable."""
        return [lease async for lease in self.each_of(_LEASES, "leases", labelSelector=meta.LEASE_LABEL)]

    async def events(self, node: str | None = None) -> list[Json]:
        """Return the Events about one NodeCapability; None: all of the namespace. Raises ApiUnavailable."""
        regarding = f"regarding.kind=NodeCapability,regarding.name={node}"
        selector = {"fieldSelector": regarding} if node else {}
        return [event async for event in self.each_of(_EVENTS, "events", **selector)]

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
            node: NodeJson | None = await self._get(path("v1", "nodes", name), None, f"nodes/{name}", decode=_NODE)
            return node.wire_shape() if node else None
        url_path = path(meta.API_VERSION, "namespaces", self._namespace, kind.value, name)
        found: Json | None = await self._get(url_path, meta.GROUP, f"{kind.value}/{name}")
        return found

    async def _get(
        self, url_path: str, group: str | None, resource: str, *, decode: Callable[[bytes], Any] = msgspec.json.decode
    ) -> Any:
        pending = request(self._api, "GET", url_path, seconds=READ_TIMEOUT, decode=decode)
        return await asked_if_present(pending, "get", resource, group)

    async def operator_leases(self) -> tuple[Json | None, Json | None]:
        """Return the election Lease and the probe Lease, None for one that does not exist. Raises ApiUnavailable."""
        return await self._lease(meta.ELECTION_LEASE), await self._lease(meta.PROBE_LEASE)

    async def fleets(self) -> list[str]:
        """Return the namespaces in which an operator has led, of the whole cluster. Raises ApiUnavailable.

        Few may list the Leases of all namespaces.
        """
        selector = {"fieldSelector": f"metadata.name={meta.ELECTION_LEASE}"}
        found = _items(self._api, path(_LEASES, "leases"), selector, _LEASES.partition("/")[0])
        return [msgspec.json.decode(item)["metadata"]["namespace"] async for item in found]

    async def _lease(self, name: str) -> Json | None:
        """Return one Lease by a list, because viewers may list Leases, and not get them."""
        selector = f"metadata.name={name}"
        return next(iter([item async for item in self.each_of(_LEASES, "leases", fieldSelector=selector)]), None)

    async def follows_nodes(self) -> bool:
        """Return True if the current or last leader follows v1 Nodes, by its election Lease. Raises ApiUnavailable."""
        lease = await self._lease(meta.ELECTION_LEASE)
        annotations = (lease["metadata"].get("annotations") or {}) if lease else {}
        return bool(annotations.get(meta.KUBE_NODES_ANNOTATION) == "true")

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
        url_path = path("v1", "namespaces", SYSTEM_NAMESPACE)
        pending = request(self._api, "GET", url_path, seconds=READ_TIMEOUT)
        body = await asked(pending, "get", f"namespaces/{SYSTEM_NAMESPACE}", "")
        return str(body["metadata"]["uid"])

    async def each_of(self, group_version: str, plural: str, **selectors: str) -> AsyncIterator[Json]:
        """Yield all objects of one resource in the namespace, page by page. Raises ApiUnavailable, also half-way."""
        async for item in self._each_raw_of(group_version, plural, **selectors):
            yield msgspec.json.decode(item)

    async def get_of(self, group_version: str, plural: str, name: str) -> Json | None:
        """Return one object of a resource in the namespace, or None if there is none. Raises ApiUnavailable."""
        url_path = path(group_version, "namespaces", self._namespace, plural, name)
        found: Json | None = await self._get(url_path, group_version.partition("/")[0], f"{plural}/{name}")
        return found

    async def metadata_of(self, group_version: str, plural: str, **selectors: str) -> AsyncIterator[Json]:
        """Yield nothing but the metadata of all objects of one resource in the namespace. Raises as `each_of`."""
        url_path = path(group_version, "namespaces", self._namespace, plural)
        group = group_version.partition("/")[0]
        async for item in _items(self._api, url_path, selectors, group, accept=_METADATA):
            yield msgspec.json.decode(item)["metadata"]

    async def may(self, verb: str, group: str, resource: str) -> bool:
        """Return True if this account has a right in the namespace. Raises ApiUnavailable."""
        attributes = {"namespace": self._namespace, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": _REVIEWS,
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        url_path = path(_REVIEWS, "selfsubjectaccessreviews")
        pending = request(self._api, "POST", url_path, body=review, seconds=READ_TIMEOUT)
        answer = await asked(pending, "create", "selfsubjectaccessreviews", _REVIEWS.partition("/")[0])
        return bool(answer["status"]["allowed"])

    def _each_raw(self, kind: Kind, **selectors: str) -> AsyncIterator[msgspec.Raw]:
        if kind is Kind.KUBE_NODE:
            return _items(self._api, path("v1", "nodes"), selectors)
        return self._each_raw_of(meta.API_VERSION, kind.value, **selectors)

    def _each_raw_of(self, group_version: str, plural: str, **selectors: str) -> AsyncIterator[msgspec.Raw]:
        url_path = path(group_version, "namespaces", self._namespace, plural)
        return _items(self._api, url_path, selectors, group_version.partition("/")[0])


async def pages(
    api: ApiClient,
    url_path: str,
    selectors: Mapping[str, str],
    group: str | None = None,
    *,
    accept: str = "application/json",
) -> AsyncIterator[tuple[list[msgspec.Raw], str]]:
    """Yield the items of each page, not decoded, and the version of the list. Raises ApiUnavailable, also half-way."""
    resource = url_path.rpartition("/")[2]
    more: Mapping[str, str] = {}
    while True:
        query = {**selectors, "limit": str(_PAGE), **more}
        pending = request(api, "GET", url_path, query=query, accept=accept, seconds=READ_TIMEOUT, decode=_PAGE_OF_LIST)
        page: _Page = await asked(pending, "list", resource, group)
        yield page.items or [], page.metadata.resourceVersion
        if not page.metadata.continue_:
            return
        more = {"continue": page.metadata.continue_}


async def _items(
    api: ApiClient,
    url_path: str,
    selectors: Mapping[str, str],
    group: str | None = None,
    *,
    accept: str = "application/json",
) -> AsyncIterator[msgspec.Raw]:
    async for items, _ in pages(api, url_path, selectors, group, accept=accept):
        for item in items:
            yield item


def _decoded(kind: Kind, item: msgspec.Raw) -> Json:
    """Return a listed object. Raises ApiUnavailable for a v1 Node of another shape."""
    try:
        body: Json = _NODE(item).wire_shape() if kind is Kind.KUBE_NODE else msgspec.json.decode(item)
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"cannot list {kind.value}: {error}", None, f"list {kind.value}") from None
    return body
