"""Connections to Kubernetes, and the reads that need no watch.

Decides nothing and writes nothing.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger
from yaml import YAMLError

from hotpool.api import meta
from hotpool.core.model import Kind
from hotpool.kube import node_json
from hotpool.kube.rest import CONNECTION_ERRORS, error_text, path, read, request, send

Json = dict[str, Any]

READ_TIMEOUT = 10.0
SYSTEM_NAMESPACE = "kube-system"
_PAGE = 500
_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
_SERVICE_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LEASES = "coordination.k8s.io/v1"
_ELECTION = f"metadata.name={meta.ELECTION_LEASE}"
_EVENTS = "events.k8s.io/v1"
KUBECONFIG_ERRORS = (config.ConfigException, YAMLError, LookupError, TypeError, ValueError, AttributeError, OSError)
"""What the loaders raise for a kubeconfig that is missing, half written or of another shape."""


class ApiUnavailable(Exception):  # noqa: N818 - an answer of the cluster, not a fault of ours.
    """The API server could not be reached or refused a read; the text says what and why.

    `status`: HTTP's, None where there was no answer. `asked`: verb and resource, empty where nothing was asked.
    """

    def __init__(self, text: str, status: int | None = None, asked: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.request = asked


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """Which cluster and namespace, as the command line or the environment says."""

    namespace: str
    kubeconfig: str | None = None
    context: str | None = None

    @property
    def in_cluster(self) -> bool:
        """True where the pod's own service account is to be used."""
        return not self.kubeconfig and not self.context and _SERVICE_HOST in os.environ


async def connect(access: ClusterTarget) -> client.ApiClient:
    """A client for the cluster; raises `config.ConfigException` with what is missing."""
    settings = client.Configuration()
    if access.in_cluster:
        config.load_incluster_config(client_configuration=settings)
    else:
        await config.load_kube_config(
            config_file=access.kubeconfig,
            context=access.context,
            client_configuration=settings,
            persist_config=False,
        )
    settings.connection_pool_maxsize = 32
    return client.ApiClient(settings)


@asynccontextmanager
async def open_reader(access: ClusterTarget) -> AsyncIterator["Reader"]:
    """A Reader with a connection of its own, for one command; raises Unavailable where none can be made."""
    try:
        api = await connect(access)
    except KUBECONFIG_ERRORS as error:
        raise kubeconfig_error(access, error) from None
    try:
        yield Reader(api, access.namespace)
    finally:
        await api.close()


def kubeconfig_error(access: ClusterTarget, error: BaseException) -> ApiUnavailable:
    """What to raise where `connect` found nothing to connect with."""
    if access.in_cluster:
        return ApiUnavailable(f"no usable service account in this pod: {error}")
    where = access.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
    if not any(Path(path).expanduser().exists() for path in where.split(os.pathsep)):
        return ApiUnavailable(f"no kubeconfig: {where} does not exist; see --kubeconfig")
    return ApiUnavailable(f"no usable kubeconfig ({where}): {error}")


def namespace_of(kubeconfig: str | None, context: str | None) -> str | None:
    """The namespace that kubectl would use without -n; None where no file says one."""
    if ClusterTarget("", kubeconfig, context).in_cluster:
        return _SERVICE_NAMESPACE.read_text().strip() if _SERVICE_NAMESPACE.is_file() else None
    with suppress(*KUBECONFIG_ERRORS):
        merged = KubeConfigMerger(kubeconfig or os.path.expanduser(KUBE_CONFIG_DEFAULT_LOCATION)).config  # noqa: PTH111 - may be several paths.
        chosen = merged["contexts"].get_with_name(context or merged["current-context"])
        return chosen["context"].safe_get("namespace") or None
    return None


class Reader:
    """Reads of our own kinds and their definitions, of v1 Nodes, and of the Leases and Events that belong to nodes."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def leases(self) -> list[Json]:
        """The nodes' Leases; raises Unavailable."""
        return [lease async for lease in self._each(_LEASES, "leases", labelSelector=meta.LEASE_LABEL)]

    async def events(self, node: str) -> list[Json]:
        """The Events that regard one NodeCapability; raises Unavailable."""
        regarding = f"regarding.kind=NodeCapability,regarding.name={node}"
        return [event async for event in self._each(_EVENTS, "events", fieldSelector=regarding)]

    def each(self, kind: Kind, *, labels: str | None = None) -> AsyncIterator[Json]:
        """Every object of a kind (with these labels), consistent at one moment; raises Unavailable, also half-way.

        No more than a page is held in memory: all slices of a large fleet are a gigabyte of dicts.
        """
        if kind is Kind.KUBE_NODE:
            return self._each_kube_node()
        return self._each(meta.API_VERSION, kind.value, **({"labelSelector": labels} if labels else {}))

    async def get(self, kind: Kind, name: str) -> Json | None:
        """One object, or None where the API server says 404; raises Unavailable."""
        if kind is Kind.KUBE_NODE:
            return await self._kube_node(name)
        where = path(meta.API_VERSION, "namespaces", self._namespace, kind.value, name)
        return await self._get(where, meta.GROUP, f"{kind.value}/{name}")

    async def _get(self, where: str, group: str, resource: str) -> Json | None:
        try:
            found = await request(self._api, "GET", where, seconds=READ_TIMEOUT)
        except (ApiException, *CONNECTION_ERRORS) as error:
            if isinstance(error, ApiException) and error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                return None
            raise _unavailable("get", group, resource, error) from None
        return dict(found)

    async def _kube_node(self, name: str) -> Json | None:
        try:
            answer = await send(self._api, "GET", path("v1", "nodes", name), seconds=READ_TIMEOUT)
            body = await read_body(answer, f"get nodes/{name}")
        except CONNECTION_ERRORS as error:
            raise _unavailable("get", "", f"nodes/{name}", error) from None
        except ApiUnavailable as error:
            if error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                return None
            raise
        return node_json.node(body)

    async def _each_kube_node(self) -> AsyncIterator[Json]:
        async for nodes, _ in kube_nodes(self._api):
            for node in nodes:
                yield node

    async def follows_nodes(self) -> bool:
        """Whether the operator that leads, or led last, follows v1 Nodes: its election Lease says so.

        Raises Unavailable.
        """
        found = [item async for item in self._each(_LEASES, "leases", fieldSelector=_ELECTION)]
        said = [(item["metadata"].get("annotations") or {}).get(meta.KUBE_NODES_ANNOTATION) for item in found]
        return said == ["true"]

    async def schema_revision(self, kind: Kind) -> int | None:
        """The revision of the CRD that is served, 0 where it states none, None where there is no such CRD."""
        name = f"{kind.value}.{meta.GROUP}"
        where = path("apiextensions.k8s.io/v1", "customresourcedefinitions", name)
        found = await self._get(where, "apiextensions.k8s.io", f"customresourcedefinitions/{name}")
        if found is None:
            return None
        annotations = found["metadata"].get("annotations") or {}
        revision: str = annotations.get(meta.SCHEMA_REVISION_ANNOTATION, "0")
        return int(revision) if revision.isdecimal() else 0

    async def cluster_id(self) -> str:
        """What tells this cluster from others: the uid of its namespace kube-system; raises Unavailable."""
        try:
            where = path("v1", "namespaces", SYSTEM_NAMESPACE)
            found = await request(self._api, "GET", where, seconds=READ_TIMEOUT)
        except (ApiException, *CONNECTION_ERRORS) as error:
            raise _unavailable("get", "", f"namespaces/{SYSTEM_NAMESPACE}", error) from None
        return str(found["metadata"]["uid"])

    async def _each(self, group_version: str, plural: str, **selectors: str) -> AsyncIterator[Json]:
        """All objects of one resource in the namespace, page by page."""
        where = path(group_version, "namespaces", self._namespace, plural)
        more = ""
        while True:
            query = selectors | {"limit": str(_PAGE)} | ({"continue": more} if more else {})
            try:
                page = await request(self._api, "GET", where, query=query, seconds=READ_TIMEOUT)
            except (ApiException, *CONNECTION_ERRORS) as error:
                raise _unavailable("list", group_version.partition("/")[0], plural, error) from None
            more = page["metadata"].get("continue") or ""
            for item in page["items"]:
                yield item
            if not more:
                return


async def kube_nodes(api: client.ApiClient) -> AsyncIterator[tuple[list[Json], str]]:
    """All v1 Nodes page by page, lean, each page with the version of the whole list; raises Unavailable."""
    more = ""
    while True:
        query = {"limit": str(_PAGE)} | ({"continue": more} if more else {})
        try:
            answer = await send(api, "GET", path("v1", "nodes"), query=query, seconds=READ_TIMEOUT)
            nodes, version, more = node_json.page(await read_body(answer, "list nodes"))
        except CONNECTION_ERRORS as error:
            raise _unavailable("list", "", "nodes", error) from None
        yield nodes, version
        if not more:
            return


async def read_body(answer: aiohttp.ClientResponse, asked: str) -> bytes:
    """The body of an answer that was not read yet; raises Unavailable where it is a refusal of what was `asked`."""
    try:
        return await read(answer)
    except ApiException as error:
        raise ApiUnavailable(f"cannot {asked}: {error_text(error)}", error.status, asked) from None


def _unavailable(verb: str, group: str, resource: str, error: BaseException) -> ApiUnavailable:
    status = error.status if isinstance(error, ApiException) else None
    return ApiUnavailable(f"cannot {verb} {resource}: {error_text(error)}", status, f"{verb} {resource} ({group})")
