"""Connections to Kubernetes, and the reads that need no watch.

Used by `operator`, the watch, the Lease stream, the sink and the command line. Decides nothing and writes nothing.
"""

import json
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

from hotpool import lean
from hotpool.api import meta
from hotpool.core.model import Kind

Json = dict[str, Any]

READ_TIMEOUT = 10.0
SYSTEM_NAMESPACE = "kube-system"
_PAGE = 500
_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
_SERVICE_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LEASES = ("coordination.k8s.io", "v1")
_ELECTION = f"metadata.name={meta.ELECTION_LEASE}"
_EVENTS = ("events.k8s.io", "v1")
AWAY = (aiohttp.ClientError, TimeoutError, OSError)
"""What a request raises when the API server cannot be reached or does not answer in time."""
UNUSABLE = (config.ConfigException, YAMLError, LookupError, TypeError, ValueError, AttributeError, OSError)
"""What the loaders raise for a kubeconfig that is missing, half written or of another shape."""


class Unavailable(Exception):  # noqa: N818 - an answer of the cluster, not a fault of ours.
    """The API server could not be reached or refused a read; the text says what and why.

    `status`: HTTP's, None where there was no answer. `asked`: verb and resource, empty where nothing was asked.
    """

    def __init__(self, text: str, status: int | None = None, asked: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.asked = asked


@dataclass(frozen=True, slots=True)
class Access:
    """Which cluster and namespace, as the command line or the environment says."""

    namespace: str
    kubeconfig: str | None = None
    context: str | None = None

    @property
    def in_cluster(self) -> bool:
        """True where the pod's own service account is to be used."""
        return not self.kubeconfig and not self.context and _SERVICE_HOST in os.environ


async def connect(access: Access) -> client.ApiClient:
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
async def reading(access: Access) -> AsyncIterator["Reader"]:
    """A Reader with a connection of its own, for one command; raises Unavailable where none can be made."""
    try:
        api = await connect(access)
    except UNUSABLE as error:
        raise no_kubeconfig(access, error) from None
    try:
        yield Reader(api, access.namespace)
    finally:
        await api.close()


def no_kubeconfig(access: Access, error: BaseException) -> Unavailable:
    """What to raise where `connect` found nothing to connect with."""
    if access.in_cluster:
        return Unavailable(f"no usable service account in this pod: {error}")
    where = access.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
    if not any(Path(path).expanduser().exists() for path in where.split(os.pathsep)):
        return Unavailable(f"no kubeconfig: {where} does not exist; see --kubeconfig")
    return Unavailable(f"no usable kubeconfig ({where}): {error}")


def namespace_of(kubeconfig: str | None, context: str | None) -> str | None:
    """The namespace that kubectl would use without -n; None where no file says one."""
    if Access("", kubeconfig, context).in_cluster:
        return _SERVICE_NAMESPACE.read_text().strip() if _SERVICE_NAMESPACE.is_file() else None
    with suppress(*UNUSABLE):
        merged = KubeConfigMerger(kubeconfig or os.path.expanduser(KUBE_CONFIG_DEFAULT_LOCATION)).config  # noqa: PTH111 - may be several paths.
        chosen = merged["contexts"].get_with_name(context or merged["current-context"])
        return chosen["context"].safe_get("namespace") or None
    return None


class Reader:
    """Reads of our own kinds and their definitions, of v1 Nodes, and of the Leases and Events that belong to nodes."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._definitions = client.ApiextensionsV1Api(api)
        self._core = client.CoreV1Api(api)
        self._where = (meta.GROUP, meta.VERSION, namespace)

    async def leases(self) -> list[Json]:
        """The nodes' Leases; raises Unavailable."""
        where = (*_LEASES, self._where[2])
        return [lease async for lease in _each(self._objects, where, "leases", labels=meta.LEASE_LABEL)]

    async def events(self, node: str) -> list[Json]:
        """The Events that regard one NodeCapability; raises Unavailable."""
        regarding = f"regarding.kind=NodeCapability,regarding.name={node}"
        where = (*_EVENTS, self._where[2])
        return [event async for event in _each(self._objects, where, "events", fields=regarding)]

    def each(self, kind: Kind, *, labels: str | None = None) -> AsyncIterator[Json]:
        """Every object of a kind (with these labels), consistent at one moment; raises Unavailable, also half-way.

        No more than a page is held in memory: all slices of a large fleet are a gigabyte of dicts.
        """
        if kind is Kind.KUBE_NODE:
            return self._each_kube_node()
        return _each(self._objects, self._where, kind.value, labels=labels)

    async def get(self, kind: Kind, name: str) -> Json | None:
        """One object, or None where the API server says 404; raises Unavailable."""
        if kind is Kind.KUBE_NODE:
            return await self._kube_node(name)
        try:
            found: Any = await self._objects.get_namespaced_custom_object(
                *self._where, kind.value, name, _request_timeout=READ_TIMEOUT
            )
        except (ApiException, *AWAY) as error:
            if isinstance(error, ApiException) and error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                return None
            raise _unavailable("get", meta.GROUP, f"{kind.value}/{name}", error) from None
        return dict(found)

    async def _kube_node(self, name: str) -> Json | None:
        try:
            answer: Any = await self._core.read_node_without_preload_content(name, _request_timeout=READ_TIMEOUT)
            body = await content(answer, f"get nodes/{name}")
        except AWAY as error:
            raise _unavailable("get", "", f"nodes/{name}", error) from None
        except Unavailable as error:
            if error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                return None
            raise
        return lean.node(body)

    async def _each_kube_node(self) -> AsyncIterator[Json]:
        async for nodes, _ in kube_nodes(self._core):
            for node in nodes:
                yield node

    async def follows_nodes(self) -> bool:
        """Whether the operator that leads, or led last, follows v1 Nodes: its election Lease says so.

        Raises Unavailable.
        """
        where = (*_LEASES, self._where[2])
        found = [item async for item in _each(self._objects, where, "leases", fields=_ELECTION)]
        said = [(item["metadata"].get("annotations") or {}).get(meta.KUBE_NODES_ANNOTATION) for item in found]
        return said == ["true"]

    async def schema_revision(self, kind: Kind) -> int | None:
        """The revision of the CRD that is served, 0 where it states none, None where there is no such CRD."""
        try:
            found: Any = await self._definitions.read_custom_resource_definition(
                f"{kind.value}.{meta.GROUP}", _request_timeout=READ_TIMEOUT
            )
        except (ApiException, *AWAY) as error:
            if isinstance(error, ApiException) and error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                return None
            definition = f"customresourcedefinitions/{kind.value}.{meta.GROUP}"
            raise _unavailable("get", "apiextensions.k8s.io", definition, error) from None
        revision: str = (found.metadata.annotations or {}).get(meta.SCHEMA_REVISION_ANNOTATION, "0")
        return int(revision) if revision.isdecimal() else 0

    async def cluster_id(self) -> str:
        """What tells this cluster from others: the uid of its namespace kube-system; raises Unavailable."""
        try:
            found: Any = await self._core.read_namespace(SYSTEM_NAMESPACE, _request_timeout=READ_TIMEOUT)
        except (ApiException, *AWAY) as error:
            raise _unavailable("get", "", f"namespaces/{SYSTEM_NAMESPACE}", error) from None
        return str(found.metadata.uid)


async def kube_nodes(core: client.CoreV1Api) -> AsyncIterator[tuple[list[Json], str]]:
    """All v1 Nodes page by page, lean, each page with the version of the whole list; raises Unavailable."""
    more = ""
    while True:
        try:
            answer: Any = await core.list_node_without_preload_content(
                limit=_PAGE, _continue=more or None, _request_timeout=READ_TIMEOUT
            )
            nodes, version, more = lean.page(await content(answer, "list nodes"))
        except AWAY as error:
            raise _unavailable("list", "", "nodes", error) from None
        yield nodes, version
        if not more:
            return


async def content(answer: Any, asked: str) -> bytes:
    """The body of an answer that was not read yet; raises Unavailable where it is a refusal of what was `asked`."""
    body: bytes = await answer.read()
    if answer.status >= 400:  # noqa: PLR2004 - HTTP's own number.
        said = _message(body.decode(errors="replace"))[:500]
        raise Unavailable(f"cannot {asked}: {answer.status} {answer.reason}: {said}", answer.status, asked)
    return body


async def _each(
    objects: client.CustomObjectsApi,
    where: tuple[str, str, str],
    plural: str,
    *,
    labels: str | None = None,
    fields: str | None = None,
) -> AsyncIterator[Json]:
    """All objects of one resource. `where`: group, version, namespace; the client asks for any group alike."""
    more = ""
    while True:
        try:
            page: Any = await objects.list_namespaced_custom_object(
                *where,
                plural,
                label_selector=labels,
                field_selector=fields,
                limit=_PAGE,
                _continue=more or None,
                _request_timeout=READ_TIMEOUT,
            )
        except (ApiException, *AWAY) as error:
            raise _unavailable("list", where[0], plural, error) from None
        more = page["metadata"].get("continue") or ""
        for item in page["items"]:
            yield item
        if not more:
            return


def _unavailable(verb: str, group: str, resource: str, error: BaseException) -> Unavailable:
    status = error.status if isinstance(error, ApiException) else None
    return Unavailable(f"cannot {verb} {resource}: {explain(error)}", status, f"{verb} {resource} ({group})")


def explain(error: BaseException) -> str:
    """One line for people: the status and message of the API server, or the kind of connection trouble."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}: {_message(error.body)[:500]}"
    return f"{type(error).__name__}: {error}"


def _message(body: Any) -> str:
    """What a Status object says, else the body itself."""
    text = body if isinstance(body, str) else ""
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(text)["message"])
    return text.strip()
