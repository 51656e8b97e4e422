"""A fleet in one process and in simulated time: the real manager, cache, decoder, writer and targets over fakes.

`FakeApi` implements the part of the API server that the operator uses (versions, conflicts, merge and JSON patch,
owners); `FakeRedis` has the methods of the writer. Both inject faults. `Fleet` wires them as `hotpool.app` does.
"""

import asyncio
import functools
import json
import re
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit

from kubernetes.aio.client.exceptions import ApiException
from tests.support.builders import H, Json, lease
from tests.support.leadership import FixedLeadership

from hotpool.api import meta
from hotpool.clock import Clock
from hotpool.controllers.context import ControllerContext
from hotpool.controllers.drain_reader import DrainReader
from hotpool.controllers.kubernetes_target import KubernetesTarget
from hotpool.controllers.manager import Manager
from hotpool.controllers.pod_reader import PodReader
from hotpool.controllers.redis_target import RedisTarget
from hotpool.controllers.result import Target
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.drain import Ledger
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.model import CUSTOM_KINDS, Key, Kind
from hotpool.core.node_history import Transition
from hotpool.core.watch_health import PROBE_SECONDS
from hotpool.events.aggregator import EventObject
from hotpool.events.recorder import EventRecorder
from hotpool.kube.endpoint_facts import EndpointFacts
from hotpool.kube.event_writer import EventWriter
from hotpool.kube.reader import Reader
from hotpool.kube.writer import KubeWriter
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.drift_check import DriftReport
from hotpool.projection.failures import Ejection
from hotpool.projection.history import MAX_TRANSITIONS, decode
from hotpool.projection.keys import index_field
from hotpool.projection.redis_errors import TermNotClaimedError
from hotpool.projection.use import Use

P = ParamSpec("P")
T = TypeVar("T")

PLURAL = {
    "NodeCapability": Kind.NODE,
    "Node": Kind.KUBE_NODE,
    "NodePool": Kind.POOL,
    "NodePoolSlice": Kind.SLICE,
    "NodePoolGenerator": Kind.GENERATOR,
}


POD_NAMESPACES = ("fleet",)
"""Namespaces in which the operators read pods."""


# Simulated time.


class _JumpingSelector(selectors.SelectSelector):
    """Advances its clock by the time-out instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.on_iteration: Callable[[], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.on_iteration:
            self.on_iteration()
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("deadlock: all tasks wait, and no timer is set")
        if not ready and timeout:
            self.now += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the simulated seconds."""
        return self._clock.now

    def on_each_iteration(self, call: Callable[[], None] | None) -> None:
        """Call this between any two iterations of the loop."""
        self._clock.on_iteration = call


def simulated(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test in simulated time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    """Return the simulated seconds."""
    return asyncio.get_running_loop().time()


# The API server.


@dataclass(frozen=True, slots=True)
class Write:
    """One write of the operator that was stored."""

    at: float
    verb: str
    kind: Kind
    name: str


Fault = Callable[[str, Kind, str], BaseException | None]
"""A function of verb, kind and name of each request of the operator; the exception it returns is raised."""


def unreachable(_verb: str, _kind: Kind, _name: str) -> BaseException:
    """Fail every request: the API server is unreachable."""
    return TimeoutError()


def refusing(status: int, *, kind: Kind | None = None, name: str | None = None, verb: str | None = None) -> Fault:
    """Return a fault that answers with a status where kind, name and verb are those given."""

    def fault(its_verb: str, its_kind: Kind, its_name: str) -> BaseException | None:
        hit = kind in {None, its_kind} and name in {None, its_name} and verb in {None, its_verb}
        return ApiException(status=status, reason="injected") if hit else None

    return fault


class FakeApi:
    """Objects in memory, with the responses of an API server."""

    def __init__(self) -> None:
        self.objects: dict[Kind, dict[str, Json]] = {kind: {} for kind in Kind}
        self.feed: Callable[[Kind, str | None, Json], None] | None = None
        """The watch: a callback with each event; None: events are lost, as while a watch is broken."""
        self.fault: Fault | None = None
        self.writes: list[Write] = []
        self.requests: Counter[str] = Counter()
        self.delay = 0.0
        """Seconds that each write of the operator takes."""
        self.leases: dict[str, str] = {}
        """Name → resourceVersion of the nodes' Leases."""
        self.pods: dict[str, Json] = {}
        """Namespace and name, as `fleet/p` → pod. No event reports a change."""
        self.pod_fault: Callable[[str], BaseException | None] = lambda _name: None
        """Function of `fleet/p`; the exception it returns is raised instead of the answer to a GET of the pod."""
        self.pod_reads: list[str] = []
        self.pod_delay = 0.0
        """Seconds that each GET of a pod takes."""
        self.events: list[tuple[float, Json]] = []
        """Simulated seconds and Event."""
        self.event_fault: Callable[[], BaseException | None] = lambda: None
        """The exception it returns is raised instead of storing an Event."""
        self.event_delay = 0.0
        self.answering = asyncio.Event()
        """Cleared while the server is stalled: requests wait."""
        self.answering.set()
        self.late_requests = True
        """True: requests that the operator gave up during a stall take effect after it."""
        self._late: set[asyncio.Task[FakeResponse]] = set()
        self._version = 100
        self._uids: set[str] = set()

    # Actions of people, agents and the API server itself.

    def put(self, body: Json) -> Json:
        """Create an object, or replace spec, metadata and status of the existing one."""
        kind, name = PLURAL[body["kind"]], body["metadata"]["name"]
        return self._store(kind, {**self.objects[kind].get(name, {}), **body})

    def edit(self, kind: Kind, name: str, patch: Json) -> Json:
        """Merge-patch an object, as `kubectl patch` does."""
        return self._store(kind, merged(self.objects[kind][name], patch))

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object and, as the garbage collector does, all objects that it owns."""
        deleted = self.objects[kind].pop(name)
        self._version += 1
        deleted["metadata"]["resourceVersion"] = str(self._version)
        self._notify(kind, "DELETED", deleted)
        for other in Kind:
            for item in list(self.objects[other].values()):
                if deleted["metadata"]["uid"] in {o["uid"] for o in item["metadata"].get("ownerReferences") or []}:
                    self.delete(other, item["metadata"]["name"])

    def slices(self, pool: str) -> dict[str, list[str]]:
        """Return slice name → its nodes."""
        return {
            name: [item["node"] for item in body["members"]]
            for name, body in sorted(self.objects[Kind.SLICE].items())
            if body["metadata"].get("labels", {}).get(meta.POOL_LABEL) == pool
        }

    def members(self, pool: str) -> dict[str, str]:
        """Return node → state of all members in the slices of a pool."""
        found = [self.objects[Kind.SLICE][name]["members"] for name in self.slices(pool)]
        return {item["node"]: item["state"] for members in found for item in members}

    def conditions(self, kind: Kind, name: str) -> dict[str, tuple[str, str]]:
        """Return type → status and reason of an object's conditions."""
        status = self.objects[kind][name].get("status") or {}
        return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions") or []}

    def written(self, kind: Kind, name: str | None = None) -> list[Write]:
        """Return the operator's writes of one kind, or of one object."""
        return [write for write in self.writes if write.kind is kind and name in {None, write.name}]

    def _store(self, kind: Kind, body: Json) -> Json:
        name = body["metadata"]["name"]
        before = self.objects[kind].get(name)
        after = copied(body)
        known = before["metadata"] if before else {"uid": self._new_uid(body), "generation": 0}
        for key in ("resourceVersion", "uid", "generation"):
            after["metadata"][key] = known.get(key)
        if before == after:
            return copied(after)
        self._version += 1
        after["metadata"]["resourceVersion"] = str(self._version)
        if before is None or before.get("spec") != after.get("spec"):
            after["metadata"]["generation"] += 1
        self.objects[kind][name] = after
        self._notify(kind, "MODIFIED" if before else "ADDED", after)
        return copied(after)

    def _new_uid(self, body: Json) -> str:
        """Return the builder's uid, or another one if an object had it before."""
        wanted = str(body["metadata"].get("uid") or f"uid-{body['metadata']['name']}")
        uid = f"{wanted}-{self._version}" if wanted in self._uids else wanted
        self._uids.add(uid)
        return uid

    def _notify(self, kind: Kind, event: str, body: Json) -> None:
        if self.feed:
            asyncio.get_running_loop().call_soon(self.feed, kind, event, copied(body))

    # Requests of the operator, by the two methods of an ApiClient that it uses.

    async def param_serialize(
        self,
        method: str,
        path: str,
        *,
        query_params: Sequence[tuple[str, str]],
        header_params: dict[str, str],
        **_: Any,
    ) -> tuple[str, str, dict[str, str], None, None]:
        """Return method, URL, headers and two unused values, as the client does."""
        return method, f"{path}?{urlencode(query_params)}", header_params, None, None

    async def call_api(
        self, method: str, url: str, headers: dict[str, str], body: Any, *, _request_timeout: float, **_: Any
    ) -> "FakeResponse":
        """Answer one request; a refusal is a response, too. Raises TimeoutError while the server is stalled."""
        if self.answering.is_set():
            return await self._answer(method, url, headers, body)
        answer = asyncio.create_task(self._answer(method, url, headers, body))
        self._late.add(answer)
        answer.add_done_callback(self._late.discard)
        async with asyncio.timeout(_request_timeout):
            return await (asyncio.shield(answer) if self.late_requests else answer)

    async def _answer(self, method: str, url: str, headers: dict[str, str], body: Any) -> "FakeResponse":
        await self.answering.wait()
        try:
            found = await self._serve(method, urlsplit(url), body, apply="apply" in headers["Content-Type"])
        except ApiException as error:
            return FakeResponse(b"", error.status, error.reason)
        return FakeResponse(json.dumps(found).encode())

    async def _serve(self, method: str, url: SplitResult, body: Any, *, apply: bool) -> Any:
        if url.path == "/version":
            self._raise_fault("get", Kind.NODE, "")
            return {}
        if found := re.fullmatch("/api/v1/namespaces/([^/]+)/pods/([^/]+)", url.path):
            return await self._pod("/".join(found.groups()))
        head, _, tail = unquote(url.path).partition("/namespaces/fleet/")
        plural, name, part = [*(tail or head.removeprefix("/api/v1/")).split("/"), "", ""][:3]
        match method, plural:
            case "DELETE", "leases":
                return await self._delete_lease(name, body["preconditions"]["resourceVersion"])
            case "POST", "events":
                return await self._post_event(body)
            case "GET", _:
                return await (
                    self._get(Kind(plural), name)
                    if name
                    else self.page(Kind(plural), parse_qs(url.query).get("continue"))
                )
            case "POST", _:
                return await self.create(Kind(plural), body)
            case "DELETE", _:
                return await self.remove(Kind(plural), name, body["preconditions"]["resourceVersion"])
            case _:
                patch = self.patch_status if part == "status" else self.patch
                return await patch(Kind(plural), name, body, apply=apply)

    async def _pod(self, name: str) -> Json:
        """Return a pod, or raise 404."""
        self.pod_reads.append(name)
        await asyncio.sleep(self.pod_delay)
        if error := self.pod_fault(name):
            raise error
        if name not in self.pods:
            raise ApiException(status=404, reason="NotFound")
        return copied(self.pods[name])

    async def page(self, kind: Kind, _more: object, /) -> Json:
        """Return all objects of a kind, in one page."""
        self._raise_fault("list", kind, "")
        await asyncio.sleep(0)
        return {"items": [*self.objects[kind].values()], "metadata": {"resourceVersion": "1"}}

    async def _get(self, kind: Kind, name: str) -> Json:
        """Return an object, or raise 404."""
        self._raise_fault("get", kind, name)
        await asyncio.sleep(0)
        return self._stored(kind, name)

    async def create(self, kind: Kind, body: Json) -> Json:
        """Store a new object, or raise 409."""
        name = body["metadata"]["name"]
        await self._start_write("create", kind, name)
        if name in self.objects[kind]:
            raise ApiException(status=409, reason="AlreadyExists")
        return self._commit("create", kind, name, body)

    async def patch(self, kind: Kind, name: str, body: Any, *, apply: bool) -> Json:
        """Merge-patch, JSON-patch or apply (for one writer) everything but the status."""
        await self._start_write("patch", kind, name)
        known = self._stored(kind, name)
        if apply and body["metadata"].get("uid") != known["metadata"]["uid"]:
            raise ApiException(status=409, reason="Conflict")
        wanted = replaced(known, body) if isinstance(body, list) else merged(known, body)
        self._check(known, wanted["metadata"].get("resourceVersion"))
        return self._commit("patch", kind, name, {**wanted, "status": known.get("status")})

    async def patch_status(self, kind: Kind, name: str, body: Json, *, apply: bool) -> Json:
        """Merge-patch the status, or apply conditions beside those of others."""
        await self._start_write("status", kind, name)
        known = self._stored(kind, name)
        if apply and body["metadata"].get("uid") != known["metadata"]["uid"]:
            raise ApiException(status=409, reason="Conflict")
        self._check(known, body["metadata"].get("resourceVersion"))
        status = applied(known.get("status") or {}, body["status"]) if apply else body["status"]
        return self._commit("status", kind, name, merged(known, {"status": status}))

    async def remove(self, kind: Kind, name: str, version: str) -> Json:
        """Delete an object of this resourceVersion, or raise 409."""
        await self._start_write("delete", kind, name)
        known = self._stored(kind, name)
        self._check(known, version)
        self.writes.append(Write(now(), "delete", kind, name))
        self.delete(kind, name)
        return known

    async def _delete_lease(self, name: str, version: str) -> Json:
        """Delete the Lease of a node, or raise 409 if it was renewed meanwhile."""
        await self._start_write("delete_lease", Kind.NODE, name)
        if version != self.leases.get(name):
            raise ApiException(status=409, reason="Conflict")
        del self.leases[name]
        return {}

    async def _post_event(self, body: Json) -> Json:
        """Store an Event of core/v1."""
        await asyncio.sleep(self.event_delay)
        self.requests["event"] += 1
        if error := self.event_fault():
            raise error
        self.events.append((now(), body))
        return body

    def event_notes(self, name: str | None = None) -> list[tuple[str, str]]:
        """Return reason and message of the Events about an object, in the order of their arrival."""
        return [(e["reason"], e["message"]) for _, e in self.events if name in {None, e["involvedObject"]["name"]}]

    def _raise_fault(self, verb: str, kind: Kind, name: str) -> None:
        self.requests[verb] += 1
        if self.fault and (error := self.fault(verb, kind, name)):
            raise error

    async def _start_write(self, verb: str, kind: Kind, name: str) -> None:
        await asyncio.sleep(self.delay)
        self._raise_fault(verb, kind, name)

    def _stored(self, kind: Kind, name: str) -> Json:
        if name not in self.objects[kind]:
            raise ApiException(status=404, reason="NotFound")
        return self.objects[kind][name]

    def _check(self, known: Json, version: str | None) -> None:
        if version is not None and version != known["metadata"]["resourceVersion"]:
            raise ApiException(status=409, reason="Conflict")

    def _commit(self, verb: str, kind: Kind, name: str, body: Json) -> Json:
        self.writes.append(Write(now(), verb, kind, name))
        return self._store(kind, body)


@dataclass(slots=True)
class FakeResponse:
    """A response whose body is not read yet."""

    body: bytes
    status: int = 200
    reason: str = "OK"

    @property
    def response(self) -> "FakeResponse":
        """Return itself: the client wraps aiohttp's response."""
        return self

    async def read(self) -> bytes:
        """Return the body."""
        return self.body


def copied(value: T) -> T:
    """Return a copy by way of JSON, which is much faster than `copy.deepcopy`."""
    return cast("T", json.loads(json.dumps(value)))


def merged(value: Any, patch: Any) -> Any:
    """Return the value after a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    base = dict(value) if isinstance(value, dict) else {}
    for key, item in patch.items():
        if item is None:
            base.pop(key, None)
        else:
            base[key] = merged(base.get(key), item)
    return base


def replaced(value: Json, operations: list[Json]) -> Json:
    """Return the value after a JSON patch of `replace` operations."""
    result = copied(value)
    for operation in operations:
        *parents, last = operation["path"].strip("/").split("/")
        functools.reduce(lambda inner, key: inner[key], parents, result)[last] = operation["value"]
    return result


def applied(status: Json, ours: Json) -> Json:
    """Return the merge patch of a server-side apply: conditions are merged by type with those of others."""
    stored = status.get("conditions") if isinstance(status, dict) else None
    found = [*(stored if isinstance(stored, list) else []), *ours["conditions"]]
    conditions = {c["type"]: c for c in found if isinstance(c, dict) and isinstance(c.get("type"), str)}
    return {"drain": None, **ours, "conditions": list(conditions.values())}


# Redis.


@dataclass(slots=True)
class FakeRedis:
    """The writer's methods over dictionaries."""

    pools: dict[str, PoolDocument] = field(default_factory=dict)
    nodes: dict[str, NodeDocument] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[Transition]] = field(default_factory=dict)
    """Newest first."""
    exceptions: dict[str, dict[str, str]] = field(default_factory=dict)
    """Node → exceptions of its last write."""
    endpoints_denied: tuple[str, ...] = ()
    failures_denied: tuple[str, ...] = ()
    slots_denied: tuple[str, ...] = ()
    waiting_denied: tuple[str, ...] = ()
    use: Use = field(default_factory=Use)
    """Use that the next stamp returns."""
    failing: tuple[Ejection, ...] = ()
    """Ejected services."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Pool → waiting picks."""
    denied: tuple[str, ...] = ()
    """Rights on the keys of endpoints that the next claim finds missing."""
    term: int = 0
    claims: int = 0
    complete: bool | None = None
    fault: BaseException | None = None
    """Raised by every method while it is set."""
    refusals: dict[str, BaseException] = field(default_factory=dict)
    """Method, or method and name → the exception it raises."""
    delay: float = 0.0
    reservations: dict[str, int] = field(default_factory=dict)
    """Node → number of reservations."""
    longest: float = 30.0
    """Time until the last of them expires, in seconds."""
    begun: float = -1e6
    """Time since which all reservations are known, in simulated seconds."""
    log: list[tuple[float, str, str]] = field(default_factory=list)
    """Simulated seconds, method and name of each write."""
    _writing: list[str] = field(default_factory=list)
    _busy: set[str] = field(default_factory=set)
    """Names that are written during the last drift check."""

    def flush(self) -> None:
        """Delete everything."""
        self.pools, self.nodes, self.index, self.history = {}, {}, {}, {}
        self.term, self.complete = 0, None
        self.reservations, self.begun = {}, now()

    def writes_of(self, name: str) -> list[str]:
        """Return the methods that wrote one name."""
        return [verb for _, verb, written in self.log if written == name]

    async def claim(self, term: int, _cluster: str) -> int:
        """Return the larger of this term and the stored one."""
        self.claims += 1
        await self._raise_fault("claim", "")
        self.endpoints_denied = self.denied
        self.term = max(self.term, term)
        return self.term

    async def check_dispatch_rights(self) -> None:
        """Do nothing: `failures_denied`, `slots_denied` and `waiting_denied` are what a test sets."""

    async def waiters(self) -> dict[str, int]:
        """Return the number of waiting picks by pool."""
        return self.waiting

    async def missing_rights(self) -> tuple[str, ...]:
        """Return the rights on the keys of endpoints that are missing now."""
        return self.denied

    async def ejections(self) -> tuple[Ejection, ...]:
        """Return the ejected services."""
        await self._raise_fault("ejections", "")
        return self.failing

    async def replace_pool(self, document: PoolDocument) -> None:
        """Store a pool."""
        await self._write("replace_pool", document.name)
        self.pools[document.name] = document
        if document.generator:
            self.index[index_field(document.generator, document.key or "")] = document.name

    async def drop_pool(self, name: str) -> None:
        """Delete a pool and its index entry."""
        await self._write("drop_pool", name)
        self.pools.pop(name, None)
        self.index = {key: pool for key, pool in self.index.items() if pool != name}

    async def replace_node(self, document: NodeDocument, exceptions: Mapping[str, str] | None = None) -> None:
        """Store a node."""
        await self._write("replace_node", document.name)
        self.exceptions[document.name] = dict(exceptions or {})
        self.nodes[document.name] = document

    async def drop_node(self, name: str, *, delete_history: bool = True) -> None:
        """Delete a node, with its history if `delete_history`."""
        await self._write("drop_node", name)
        self.nodes.pop(name, None)
        if delete_history:
            self.history.pop(name, None)

    async def append_history(self, name: str, transitions: Sequence[str]) -> None:
        """Add transitions to the history of a node."""
        await self._write("append_history", name)
        self.history[name] = [*map(decode, reversed(transitions)), *self.history.get(name, [])][:MAX_TRANSITIONS]

    async def drop_index(self, fields: Any) -> None:
        """Delete fields of the index."""
        names = list(fields)
        if names:
            await self._write("drop_index", ",".join(names))
        for name in names:
            self.index.pop(name, None)

    async def read_ledger(self, _rank: int, nodes: Sequence[str]) -> Ledger:
        """Return the reservations, and those of these nodes, which expire in `longest` seconds."""
        await self._raise_fault("read_ledger", "")
        held = frozenset(name for name, number in self.reservations.items() if number)
        in_use = {name: self.reservations.get(name, 0) for name in nodes}
        return Ledger(now() - self.begun, self.longest if held else 0.0, len(held), held, in_use)

    async def stamp(self, *, complete: bool) -> Use:
        """Mark the projection as alive. Refused reservations are returned once."""
        await self._write("stamp", "")
        self.complete = complete
        use = replace(self.use, slots=None) if self.slots_denied else self.use
        self.use = replace(self.use, refused={})
        return use

    async def stored_digests(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the digests of pools and nodes."""
        await self._raise_fault("stored_digests", "")
        return (
            {name: document.digest for name, document in self.pools.items()},
            {name: document.digest for name, document in self.nodes.items()},
        )

    async def check_drift(self, pools: Mapping[str, PoolDocument], nodes: Mapping[str, NodeDocument]) -> DriftReport:
        """Compare the state at the time of the call but names that are written meanwhile; the response is delayed."""
        self._busy = busy = set(self._writing)
        wanted = {
            index_field(document.generator, document.key or "") for document in pools.values() if document.generator
        }
        result = DriftReport(
            claimed=bool(self.term),
            pools=frozenset(name for name, document in pools.items() if self.pools.get(name) != document),
            stray_pools=frozenset(self.pools.keys() - pools),
            stray_index=frozenset(self.index.keys() - wanted),
            nodes=frozenset(name for name, document in nodes.items() if self.nodes.get(name) != document),
            stray_nodes=frozenset(self.nodes.keys() - nodes),
        )
        await self._raise_fault("check_drift", "")
        return replace(
            result,
            pools=result.pools - busy,
            stray_pools=result.stray_pools - busy,
            nodes=result.nodes - busy,
            stray_nodes=result.stray_nodes - busy,
        )

    async def _raise_fault(self, verb: str, name: str) -> None:
        await asyncio.sleep(self.delay)
        if error := self.fault or self.refusals.get(verb) or self.refusals.get(f"{verb} {name}"):
            raise error

    async def _write(self, verb: str, name: str) -> None:
        self._writing.append(name)
        self._busy.add(name)
        try:
            await self._raise_fault(verb, name)
        finally:
            self._writing.remove(name)
        if not self.term:
            raise TermNotClaimedError("no term")
        self.log.append((now(), verb, name))


# The operator.


async def cluster_id() -> str:
    """Return the id of the fake cluster."""
    return "cluster-1"


class Fleet:
    """One operator on a fake API server and, unless `redis` is None, a fake Redis. `kube_nodes`: watch v1 Nodes."""

    def __init__(self, api: FakeApi | None = None, redis: FakeRedis | None = None, *, kube_nodes: bool = False) -> None:
        self.api = api or FakeApi()
        self.redis = redis
        self.leadership = FixedLeadership(term=7)
        self.cache = ClusterCache()
        clock = Clock(asyncio.get_running_loop().time, asyncio.get_running_loop().time)
        self.recorder = EventRecorder(self.cache, clock)
        client = cast("Any", self.api)
        self._writer = KubeWriter(client, "fleet", self.leadership)
        self._clock, self._reader = clock, Reader(client, "fleet")
        kinds = (Kind.KUBE_NODE, *CUSTOM_KINDS) if kube_nodes else CUSTOM_KINDS
        self._pod_reader = PodReader(EndpointFacts(client, "https://fake"), self.cache.endpoints.pods, POD_NAMESPACES)
        wake = self._pod_reader.wake
        self.manager = Manager(self.cache, self._reader, clock, self.recorder, kinds, wake_pod_reader=wake)
        self.tasks: list[asyncio.Task[Any]] = []
        self.pod_reading = asyncio.create_task(self._pod_reader.run(self.manager.on_pod))
        self.watch_frozen = False
        """True while the Lease watch is open and delivers no events."""
        self._beats = 0
        self._drain_reader: DrainReader

    @property
    def leading(self) -> bool:
        """True while the operator may write."""
        return self.leadership.leading

    @leading.setter
    def leading(self, leading: bool) -> None:
        self.leadership.leading = leading

    @property
    def term(self) -> int:
        """Term of the operator."""
        return self.leadership.term

    @term.setter
    def term(self, term: int) -> None:
        self.leadership.term = term

    def _targets(self) -> list[Target]:
        context = ControllerContext(
            cache=self.cache,
            kube=self._writer,
            resync=self.manager.resync,
            clock=self._clock,
            recorder=self.recorder,
        )
        kubernetes = KubernetesTarget(context, self._reader)
        redis = (
            RedisTarget(
                cast("Any", self.redis), self.cache, self._clock, self.leadership, cluster_id, recorder=self.recorder
            )
            if self.redis
            else None
        )
        self._drain_reader = DrainReader(
            redis, self.cache, self._clock, context.drains, self.manager.mark, memory=self.leadership
        )
        return [redis, kubernetes] if redis else [kubernetes]

    @property
    def redis_error(self) -> str:
        """Reason why Redis does not hold the desired state; empty if it does."""
        return self.manager.target_errors().get("redis", "no leader")

    async def renew_probe_lease(self) -> None:
        """Renew the probe Lease until cancelled, and deliver it unless the watch is frozen."""
        while True:
            renewed = f"{now()}"
            self.manager.ingest.on_probe_sent(renewed)
            if not self.watch_frozen:
                self.manager.on_probe_received(renewed)
            await asyncio.sleep(PROBE_SECONDS)

    def watch(self) -> None:
        """Deliver events to the operator from now on."""
        self.api.feed = self.manager.on_object

    def beat(self, *names: str) -> None:
        """Renew the Leases of these nodes (without names: of all)."""
        self._beats += 1
        nodes = names or tuple(self.api.objects[Kind.NODE])
        self.api.leases |= {f"{meta.LEASE_PREFIX}{name}": str(self._beats) for name in nodes}
        if not self.watch_frozen:
            beats = [lease(name, f"{now()}/{self._beats}", version=str(self._beats)) for name in nodes]
            self.manager.on_heartbeats(beats)

    async def beating(self, seconds: float, *names: str) -> None:
        """Let so many simulated seconds pass, with a heartbeat of these nodes (without names: of all) each H."""
        end = now() + seconds
        while now() < end:
            self.beat(*names)
            await asyncio.sleep(min(H, end - now()))

    def list_leases(self) -> None:
        """Deliver the first listing of Leases: one for each node."""
        self.manager.on_heartbeats([lease(name, "listed") for name in self.api.objects[Kind.NODE]])
        self.manager.on_watch_restored()

    async def lead(self) -> None:
        """Start to work as the leader."""
        self.recorder.leader_elected(
            self.term, EventObject("Lease", "hotpool-operator", "uid-lease", "coordination.k8s.io/v1")
        )
        client = cast("Any", self.api)
        events = EventWriter(client, "fleet", self.leadership, instance="operator-1")
        parts = (
            self.manager.lead(self._targets()),
            self.renew_probe_lease(),
            self.recorder.run(events.post),
            self.recorder.membership_log.run(),
            self._drain_reader.run(),
        )
        self.tasks += [asyncio.create_task(part) for part in parts]

    async def lose_leadership(self) -> None:
        """Lose the Lease, and end the work as `hotpool.app` does."""
        self.leading = False
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.recorder.leader_lost()

    async def stop(self) -> None:
        """End the process. Raise the exception of a task that had failed before."""
        self.api.feed = None
        tasks = [*self.tasks, self.pod_reading]
        done = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    @property
    def keys(self) -> set[Key]:
        """Return the keys of all objects in the cache."""
        return {Key(kind, name) for kind in CUSTOM_KINDS for name in self.cache.identities(kind)}


@asynccontextmanager
async def operator(
    api: FakeApi, redis: FakeRedis | None = None, *, kube_nodes: bool = False, policy: AddressPolicy | None = None
) -> AsyncIterator[Fleet]:
    """Run an operator that has listed everything, leads and has written its first changes; it ends with the block."""
    fleet = Fleet(api, redis, kube_nodes=kube_nodes)
    fleet.cache.endpoints.policy = policy or AddressPolicy()
    fleet.list_leases()
    fleet.watch()
    await fleet.manager.open_gate()
    await fleet.lead()
    await asyncio.sleep(0.5)
    try:
        yield fleet
    finally:
        await fleet.stop()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> float:
    """Let simulated time pass until the condition holds; return the simulated seconds that passed."""
    began = now()
    while not condition():
        assert now() - began < seconds, f"the condition does not hold within {seconds} s"
        await asyncio.sleep(0.01)
    return now() - began
