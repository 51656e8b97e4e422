"""Connections to Kubernetes, and the reads that need no watch.

Used by `__main__`, the watch, the Lease stream, the sink and the command line. Decides nothing and writes nothing.
"""

import os
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api import meta
from hotpool.core.model import Kind

Json = dict[str, Any]

READ_TIMEOUT = 10.0
_PAGE = 500
_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
AWAY = (aiohttp.ClientError, TimeoutError, OSError)
"""What a request raises when the API server cannot be reached or does not answer in time."""


class Unavailable(Exception):  # noqa: N818 - an answer of the cluster, not a fault of ours.
    """The API server could not be reached or refused a read; the text says what and why."""


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


class Reader:
    """Reads of our own kinds and of their definitions."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._definitions = client.ApiextensionsV1Api(api)
        self._where = (meta.GROUP, meta.VERSION, namespace)

    async def list(self, kind: Kind) -> list[Json]:
        """Every object of a kind, consistent at one moment; raises Unavailable."""
        found: list[Json] = []
        more = ""
        while True:
            try:
                page: Any = await self._objects.list_namespaced_custom_object(
                    *self._where, kind.value, limit=_PAGE, _continue=more or None, _request_timeout=READ_TIMEOUT
                )
            except (ApiException, *AWAY) as error:
                raise Unavailable(f"cannot list {kind.value}: {explain(error)}") from None
            found += page["items"]
            more = page["metadata"].get("continue") or ""
            if not more:
                return found

    async def get(self, kind: Kind, name: str) -> Json | None:
        """One object, or None where the API server says 404; raises Unavailable."""
        try:
            found: Any = await self._objects.get_namespaced_custom_object(
                *self._where, kind.value, name, _request_timeout=READ_TIMEOUT
            )
        except (ApiException, *AWAY) as error:
            if isinstance(error, ApiException) and error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                return None
            raise Unavailable(f"cannot get {kind.value}/{name}: {explain(error)}") from None
        return dict(found)

    async def schema_revision(self, kind: Kind) -> int | None:
        """The revision of the CRD that is served, 0 where it states none, None where there is no such CRD."""
        try:
            found: Any = await self._definitions.read_custom_resource_definition(
                f"{kind.value}.{meta.GROUP}", _request_timeout=READ_TIMEOUT
            )
        except (ApiException, *AWAY) as error:
            if isinstance(error, ApiException) and error.status == 404:  # noqa: PLR2004 - HTTP's own number.
                return None
            raise Unavailable(f"cannot read the definition of {kind.value}: {explain(error)}") from None
        revision: str = (found.metadata.annotations or {}).get(meta.SCHEMA_REVISION_ANNOTATION, "0")
        return int(revision) if revision.isdecimal() else 0


def explain(error: BaseException) -> str:
    """One line for people: the status and message of the API server, or the kind of connection trouble."""
    if isinstance(error, ApiException):
        text = error.body if isinstance(error.body, str) else ""
        return f"{error.status} {error.reason}: {text[:500]}"
    return f"{type(error).__name__}: {error}"
