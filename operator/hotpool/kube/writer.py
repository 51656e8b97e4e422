"""Writer of slices, pools, statuses and conditions to Kubernetes.

Returns the stored object. Checks the leadership before each write and never retries. Raises RetryableError,
UnavailableError (no response), StaleError (the stored object is not the one that the write is based on), RejectedError
or NotLeaderError.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from msgspec.structs import asdict

from hotpool.api import meta
from hotpool.api.capability import DrainStatus
from hotpool.api.generator import GeneratorStatus
from hotpool.api.meta import ApiModel, Condition
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.core.model import Generator, Heartbeat, Key, Kind, Member, Meta, Pool
from hotpool.core.planning.diff import CreateSlice, DeleteSlice, SliceWrite, UpdateSlice
from hotpool.errors import NotLeaderError, RejectedError, RetryableError, StaleError, UnavailableError
from hotpool.kube.rest import APPLY, CONNECTION_ERRORS, JSON_PATCH, MERGE, error_text, path, request
from hotpool.leadership import Leadership
from hotpool.observability.metrics import WRITES

Json = dict[str, Any]

WRITE_TIMEOUT = 2.0
"""Time-out in seconds, shorter than the reserve of the leadership."""

_GONE_OR_CHANGED = {404, 409}
_RETRYABLE = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class KubeWriter:
    """Writer of one namespace. Slices carry the term of the leadership."""

    _api: ApiClient
    _namespace: str
    _leadership: Leadership
    _sink: str = "kubernetes"
    """Name of the target in metrics."""

    async def write_slice(self, pool: Pool, write: SliceWrite) -> Json | None:
        """Create, update or delete a slice. Return the stored object, or None after a deletion."""
        match write:
            case CreateSlice(name, members):
                return await self._create(Kind.SLICE, self._slice(pool, name, members))
            case UpdateSlice(known, members):
                body = self._slice(pool, known.meta.name, members)
                body["metadata"]["resourceVersion"] = str(known.meta.version)
                body["term"] = max(self._leadership.term, known.term)
                return await self._patch(Kind.SLICE, known.meta.name, body)
            case DeleteSlice(known):
                await self.delete(Kind.SLICE, known.meta)
                return None

    def _slice(self, pool: Pool, name: str, members: tuple[Member, ...]) -> Json:
        return {
            "metadata": {
                "name": name,
                "labels": {meta.POOL_LABEL: pool.meta.name},
                "ownerReferences": [_owner("NodePool", pool.meta)],
            },
            "term": self._leadership.term,
            "members": [asdict(member) for member in members],
        }

    async def write_pool_status(self, pool: Pool, status: PoolStatus) -> Json:
        """Replace the status of a pool, if the pool still has the version that the status is based on."""
        return await self._patch_status(Kind.POOL, pool.meta, status)

    async def write_generator_status(self, generator: Generator, status: GeneratorStatus) -> Json:
        """Replace the status of a generator, if it still has the version that the status is based on."""
        return await self._patch_status(Kind.GENERATOR, generator.meta, status)

    async def write_node_status(self, node: Meta, conditions: tuple[Condition, ...], drain: DrainStatus | None) -> Json:
        """Apply the operator's fields of a NodeCapability's status. The agent's report is not changed."""
        ready = next(c.status for c in conditions if c.type == "Ready")
        status: Json = {"conditions": [_dump(condition) for condition in conditions], "ready": ready}
        if drain:
            status["drain"] = _dump(drain)
        body = {"metadata": {"name": node.name, "uid": node.uid}, "status": status}
        return await self._apply(node.name, body, status=True)

    async def set_owner(self, node: Meta, kube_node: Meta) -> Json:
        """Make a v1 Node an owner of the NodeCapability with this uid. Other owners stay."""
        owner = {"apiVersion": "v1", "kind": "Node", "name": kube_node.name, "uid": kube_node.uid}
        body = {"metadata": {"name": node.name, "uid": node.uid, "ownerReferences": [owner]}}
        return await self._apply(node.name, body)

    async def create_pool(self, generator: Generator, name: str, spec: PoolSpec) -> Json:
        """Create a generated pool. Its generator owns it, so that both are deleted together."""
        owners = [_owner("NodePoolGenerator", generator.meta)]
        return await self._create(
            Kind.POOL, {"metadata": {"name": name, "ownerReferences": owners}, "spec": _dump(spec)}
        )

    async def correct_pool(self, pool: Pool, spec: PoolSpec) -> Json:
        """Replace the spec of a generated pool."""
        body: list[Json] = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": str(pool.meta.version)},
            {"op": "replace", "path": "/spec", "value": _dump(spec)},
        ]
        return await self._send("patch", "PATCH", Kind.POOL, pool.meta.name, body=body, content_type=JSON_PATCH)

    async def delete(self, kind: Kind, known: Meta) -> None:
        """Delete the object with this uid and version."""
        await self._send("delete", "DELETE", kind, known.name, body=preconditions(known.uid, str(known.version)))

    async def delete_lease(self, lease: Heartbeat) -> None:
        """Delete the Lease of a node, unless it was renewed meanwhile. A missing Lease is not an error."""
        name = f"{meta.LEASE_PREFIX}{lease.node}"
        url_path = path("coordination.k8s.io/v1", "namespaces", self._namespace, "leases", name)
        with suppress(StaleError):
            body = preconditions(lease.uid, lease.version)
            await self.send("delete", "DELETE", url_path, Key(Kind.NODE, lease.node), body=body)

    async def _create(self, kind: Kind, body: Json) -> Json:
        return await self._send("create", "POST", kind, body["metadata"]["name"], body=_typed(kind, body))

    async def _patch(self, kind: Kind, name: str, body: Json) -> Json:
        return await self._send("patch", "PATCH", kind, name, body=body, content_type=MERGE)

    async def _patch_status(self, kind: Kind, known: Meta, status: ApiModel) -> Json:
        body = {"metadata": {"resourceVersion": str(known.version)}, "status": _dump_all(status)}
        return await self._send("patch_status", "PATCH", kind, known.name, body=body, content_type=MERGE, status=True)

    async def _apply(self, name: str, body: Json, *, status: bool = False) -> Json:
        typed = _typed(Kind.NODE, body)
        return await self._send("apply", "PATCH", Kind.NODE, name, body=typed, content_type=APPLY, status=status)

    async def _send(
        self,
        verb: str,
        method: str,
        kind: Kind,
        name: str,
        *,
        body: Any,
        content_type: str = "application/json",
        status: bool = False,
    ) -> Json:
        """Send a request about an object of hotpool's kinds. `status`: to the subresource."""
        parts = [kind.value] if method == "POST" else [kind.value, name, *(["status"] if status else [])]
        url_path = path(meta.API_VERSION, "namespaces", self._namespace, *parts)
        return await self.send(verb, method, url_path, Key(kind, name), body=body, content_type=content_type)

    async def send(
        self, verb: str, method: str, url_path: str, key: Key, *, body: Any, content_type: str = "application/json"
    ) -> Json:
        """Send one request of at most WRITE_TIMEOUT. Return the response. `verb`: for metrics; `key`: for errors."""
        if not self._leadership.may_write():
            raise NotLeaderError("no longer leader; nothing was sent")
        query = {} if method == "DELETE" else {"fieldManager": meta.OPERATOR_MANAGER}
        if content_type == APPLY:
            query["force"] = "true"
        try:
            response = await request(
                self._api, method, url_path, query=query, body=body, content_type=content_type, seconds=WRITE_TIMEOUT
            )
        except (ApiException, *CONNECTION_ERRORS) as error:
            WRITES.labels(self._sink, verb, "error").inc()
            raise _to_write_error(error, key) from None
        WRITES.labels(self._sink, verb, "ok").inc()
        return dict(response)


def preconditions(uid: str, version: str) -> Json:
    """Return the options of a deletion that applies to one version of one object."""
    return {"preconditions": {"uid": uid, "resourceVersion": version}}


def _to_write_error(error: BaseException, key: Key) -> RetryableError | RejectedError:
    text = f"{key.kind.value}/{key.name}: {error_text(error)}"
    if not isinstance(error, ApiException):
        return UnavailableError(text)
    if error.status in _RETRYABLE:
        return RetryableError(text)
    return StaleError(text, key.kind, key.name) if error.status in _GONE_OR_CHANGED else RejectedError(text)


def _typed(kind: Kind, body: Json) -> Json:
    kinds = {Kind.NODE: "NodeCapability", Kind.POOL: "NodePool", Kind.SLICE: "NodePoolSlice"}
    return {"apiVersion": meta.API_VERSION, "kind": kinds[kind], **body}


def _owner(kind: str, owner: Meta) -> Json:
    return {
        "apiVersion": meta.API_VERSION,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _dump(model: ApiModel) -> Json:
    return model.model_dump(by_alias=True, exclude_none=True, mode="json")


def _dump_all(model: ApiModel) -> Json:
    """Return all keys, null for absent values, so that a merge patch removes them."""
    return model.model_dump(by_alias=True, mode="json")
