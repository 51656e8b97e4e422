"""The sink that writes to Kubernetes: slices, pools, statuses, conditions.

Called by the reconciler with values of the core; returns the stored object. It asks `leader` before each write and
never retries. Errors: Retryable, Stale (what we built on is not what is stored), Rejected, NotLeader.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api import meta
from hotpool.api.generator import GeneratorStatus
from hotpool.api.meta import ApiModel, Condition
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.clients import AWAY, explain
from hotpool.core.diff import CreateSlice, DeleteSlice, SliceWrite, UpdateSlice
from hotpool.core.model import Generator, Heartbeat, Kind, Member, Meta, Pool
from hotpool.metrics import WRITES
from hotpool.sinks.errors import NotLeader, Rejected, Retryable, Stale

Json = dict[str, Any]

WRITE_TIMEOUT = 2.0
"""Seconds; shorter than what `leader` keeps in reserve (design, promise 2)."""

_JSON_PATCH = "application/json-patch+json"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_GONE_OR_CHANGED = {404, 409}
_LATER = {408, 429, 500, 502, 503, 504}


class KubeSink:
    """Writes of one namespace. `leader` says whether our time as leader still runs; `term` is written into slices."""

    def __init__(
        self, api: client.ApiClient, namespace: str, *, leader: Callable[[], bool], term: Callable[[], int]
    ) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._leases = client.CoordinationV1Api(api)
        self._namespace = namespace
        self._where = (meta.GROUP, meta.VERSION, namespace)
        self._leader = leader
        self._term = term

    async def write_slice(self, pool: Pool, write: SliceWrite) -> Json | None:
        """One write of a slice; the stored object, or None after a deletion."""
        match write:
            case CreateSlice(name, members):
                return await self._create(Kind.SLICE, self._slice(pool, name, members))
            case UpdateSlice(known, members):
                body = self._slice(pool, known.meta.name, members)
                body["metadata"]["resourceVersion"] = str(known.meta.version)
                body["term"] = max(self._term(), known.term)
                return await self._patch(Kind.SLICE, known.meta.name, body)
            case DeleteSlice(known):
                await self.delete_slice(known.meta)
                return None

    async def delete_slice(self, known: Meta) -> None:
        """Delete this very slice, unless it changed."""
        await self._delete(Kind.SLICE, known)

    def _slice(self, pool: Pool, name: str, members: tuple[Member, ...]) -> Json:
        return {
            "metadata": {
                "name": name,
                "labels": {meta.POOL_LABEL: pool.meta.name},
                "ownerReferences": [_owner("NodePool", pool.meta)],
            },
            "term": self._term(),
            "members": [member._asdict() for member in members],
        }

    async def write_pool_status(self, pool: Pool, status: PoolStatus) -> Json:
        """The whole status of a pool, built on the version that it was computed from."""
        return await self._patch_status(Kind.POOL, pool.meta, status)

    async def write_generator_status(self, generator: Generator, status: GeneratorStatus) -> Json:
        """The whole status of a generator, built on the version that it was computed from."""
        return await self._patch_status(Kind.GENERATOR, generator.meta, status)

    async def write_node_conditions(self, node: Meta, conditions: tuple[Condition, ...]) -> Json:
        """Our conditions on a NodeCapability, applied beside the agent's report."""
        ready = next(c.status for c in conditions if c.type == "Ready")
        body = {
            "metadata": {"name": node.name, "uid": node.uid},
            "status": {"conditions": [_dump(condition) for condition in conditions], "ready": ready},
        }
        request = partial(self._objects.patch_namespaced_custom_object_status, force=True, _content_type=_APPLY)
        return await self._send("apply", Kind.NODE, node.name, partial(request, body=_typed(Kind.NODE, body)))

    async def give_owner(self, node: Meta, kube: Meta) -> Json:
        """Let the garbage collector delete this very NodeCapability with a v1 Node; what else owns it stays."""
        owner = {"apiVersion": "v1", "kind": "Node", "name": kube.name, "uid": kube.uid}
        body = {"metadata": {"name": node.name, "uid": node.uid, "ownerReferences": [owner]}}
        request = partial(self._objects.patch_namespaced_custom_object, force=True, _content_type=_APPLY)
        return await self._send("apply", Kind.NODE, node.name, partial(request, body=_typed(Kind.NODE, body)))

    async def create_pool(self, generator: Generator, name: str, spec: PoolSpec) -> Json:
        """A generated pool, owned by its generator and deleted with it."""
        owners = [_owner("NodePoolGenerator", generator.meta)]
        return await self._create(
            Kind.POOL, {"metadata": {"name": name, "ownerReferences": owners}, "spec": _dump(spec)}
        )

    async def correct_pool(self, pool: Pool, spec: PoolSpec) -> Json:
        """The spec of a generated pool as its generator wants it, whole."""
        body: list[Json] = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": str(pool.meta.version)},
            {"op": "replace", "path": "/spec", "value": _dump(spec)},
        ]
        request = partial(self._objects.patch_namespaced_custom_object, body=body, _content_type=_JSON_PATCH)
        return await self._send("patch", Kind.POOL, pool.meta.name, request)

    async def delete_pool(self, pool: Pool) -> None:
        """Delete this very pool."""
        await self._delete(Kind.POOL, pool.meta)

    async def delete_node(self, node: Meta) -> None:
        """Delete this very NodeCapability, unless it changed."""
        await self._delete(Kind.NODE, node)

    async def delete_lease(self, lease: Heartbeat) -> None:
        """Delete this very Lease of a node; one that was renewed meanwhile stays, and one that is gone is no error."""
        if not self._leader():
            raise NotLeader("our time as leader is over, nothing was sent")
        conditions = client.V1Preconditions(uid=lease.uid, resource_version=lease.version)
        name = f"{meta.LEASE_PREFIX}{lease.node}"
        try:
            await self._leases.delete_namespaced_lease(
                name,
                self._namespace,
                body=client.V1DeleteOptions(preconditions=conditions),
                _request_timeout=WRITE_TIMEOUT,
            )
        except (ApiException, *AWAY) as error:
            if not isinstance(error, ApiException) or error.status not in _GONE_OR_CHANGED:
                WRITES.labels("kubernetes", "delete", "error").inc()
                raise _translated(error, Kind.NODE, lease.node) from None
        WRITES.labels("kubernetes", "delete", "ok").inc()

    async def _create(self, kind: Kind, body: Json) -> Json:
        request = partial(self._objects.create_namespaced_custom_object, body=_typed(kind, body))
        return await self._send("create", kind, body["metadata"]["name"], request)

    async def _patch(self, kind: Kind, name: str, body: Json) -> Json:
        request = partial(self._objects.patch_namespaced_custom_object, body=body, _content_type=_MERGE)
        return await self._send("patch", kind, name, request)

    async def _patch_status(self, kind: Kind, known: Meta, status: ApiModel) -> Json:
        body = {"metadata": {"resourceVersion": str(known.version)}, "status": _whole(status)}
        request = partial(self._objects.patch_namespaced_custom_object_status, body=body, _content_type=_MERGE)
        return await self._send("patch_status", kind, known.name, request)

    async def _delete(self, kind: Kind, known: Meta) -> None:
        conditions = client.V1Preconditions(uid=known.uid, resource_version=str(known.version))
        body = client.V1DeleteOptions(preconditions=conditions)
        request = partial(self._objects.delete_namespaced_custom_object, body=body)
        await self._send("delete", kind, known.name, request)

    async def _send(self, verb: str, kind: Kind, name: str, request: Callable[..., Awaitable[Any]]) -> Json:
        """One request, bounded in time."""
        if not self._leader():
            raise NotLeader("our time as leader is over, nothing was sent")
        who = {} if verb == "delete" else {"field_manager": meta.OPERATOR_MANAGER}
        where = (*self._where, kind.value) if verb == "create" else (*self._where, kind.value, name)
        try:
            answer = await request(*where, _request_timeout=WRITE_TIMEOUT, **who)
        except (ApiException, *AWAY) as error:
            WRITES.labels("kubernetes", verb, "error").inc()
            raise _translated(error, kind, name) from None
        WRITES.labels("kubernetes", verb, "ok").inc()
        return dict(answer)


def _translated(error: BaseException, kind: Kind, name: str) -> Retryable | Rejected:
    text = f"{kind.value}/{name}: {explain(error)}"
    if not isinstance(error, ApiException) or error.status in _LATER:
        return Retryable(text)
    return Stale(text, kind, name) if error.status in _GONE_OR_CHANGED else Rejected(text)


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


def _whole(model: ApiModel) -> Json:
    """All keys, null where absent, so that a merge patch removes what is no longer said."""
    return model.model_dump(by_alias=True, mode="json")
