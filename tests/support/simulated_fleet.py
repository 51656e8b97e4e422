"""A fleet in one process and in simulated time: the real Reconciler, State, decode, KubeSink and Mirror over memory.

`FakeApi` is the API server as far as the operator asks it (versions, conflicts, merge and JSON patch, owners);
`FakeRedis` has the methods of the writer. Both can be told to fail. `Fleet` wires them as `hotpool.app` does.
"""

import asyncio
import functools
import json
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit

from kubernetes.aio.client.exceptions import ApiException
from tests.support.builders import H, Json, lease

from hotpool.api import meta
from hotpool.clock import Clock
from hotpool.controllers.manager import Manager
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.liveness import PROBE_SECONDS
from hotpool.core.model import CUSTOM_KINDS, Key, Kind
from hotpool.core.node_history import Transition
from hotpool.events.aggregator import EventObject
from hotpool.events.recorder import EventRecorder
from hotpool.kube.event_writer import EventWriter
from hotpool.kube.reader import Reader
from hotpool.kube.writer import KubeWriter
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.drift_check import DriftReport
from hotpool.projection.history import MAX_TRANSITIONS, decode
from hotpool.projection.keys import index_field
from hotpool.projection.publisher import Publisher
from hotpool.projection.redis_errors import TermNotClaimedError

P = ParamSpec("P")
T = TypeVar("T")

PLURAL = {
    "NodeCapability": Kind.NODE,
    "Node": Kind.KUBE_NODE,
    "NodePool": Kind.POOL,
    "NodePoolSlice": Kind.SLICE,
    "NodePoolGenerator": Kind.GENERATOR,
}


# Simulated time.


class _Jump(selectors.SelectSelector):
    """Waits for nothing: what would be waited for in silence has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.turn: Callable[[], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.turn:
            self.turn()
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        if not ready and timeout:
            self.now += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        """Return the simulated seconds."""
        return self._jump.now

    def each_turn(self, call: Callable[[], None] | None) -> None:
        """Call this between any two turns, each of which runs what was ready, without a break."""
        self._jump.turn = call


def simulated(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test in simulated time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now() -> float:
    """The simulated seconds."""
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
"""Called with verb, kind and name of each request of the operator; what it returns is raised."""


def away(_verb: str, _kind: Kind, _name: str) -> BaseException:
    """Everything fails: the API server is away."""
    return TimeoutError()


def refusing(status: int, *, kind: Kind | None = None, name: str | None = None, verb: str | None = None) -> Fault:
    """Answer with a status where kind, name and verb are those given."""

    def fault(its_verb: str, its_kind: Kind, its_name: str) -> BaseException | None:
        hit = kind in {None, its_kind} and name in {None, its_name} and verb in {None, its_verb}
        return ApiException(status=status, reason="as told") if hit else None

    return fault


class FakeApi:
    """Objects in memory, with the answers of an API server."""

    def __init__(self) -> None:
        self.objects: dict[Kind, dict[str, Json]] = {kind: {} for kind in Kind}
        self.feed: Callable[[Kind, str | None, Json], None] | None = None
        """Who watches; None: nobody, as while a watch is broken."""
        self.fault: Fault | None = None
        self.writes: list[Write] = []
        self.requests: Counter[str] = Counter()
        self.delay = 0.0
        """Seconds that each write of the operator takes."""
        self.leases: dict[str, str] = {}
        """Name → resourceVersion of the nodes' Leases."""
        self.events: list[tuple[float, Json]] = []
        """When, and the Event."""
        self.event_fault: Callable[[], BaseException | None] = lambda: None
        """What it returns is raised instead of taking an Event."""
        self.event_delay = 0.0
        self._version = 100
        self._uids: set[str] = set()

    # What people, agents and the API server itself do.

    def put(self, body: Json) -> Json:
        """Create an object, or replace spec, metadata and status of the one that is there."""
        kind, name = PLURAL[body["kind"]], body["metadata"]["name"]
        return self._store(kind, {**self.objects[kind].get(name, {}), **body})

    def edit(self, kind: Kind, name: str, patch: Json) -> Json:
        """Merge-patch an object, as kubectl does."""
        return self._store(kind, merged(self.objects[kind][name], patch))

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object and, as the garbage collector does, what it owns."""
        gone = self.objects[kind].pop(name)
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(kind, "DELETED", gone)
        for other in Kind:
            for item in list(self.objects[other].values()):
                if gone["metadata"]["uid"] in {o["uid"] for o in item["metadata"].get("ownerReferences") or []}:
                    self.delete(other, item["metadata"]["name"])

    def slices(self, pool: str) -> dict[str, list[str]]:
        """Slice name → the nodes in it."""
        return {
            name: [item["node"] for item in body["members"]]
            for name, body in sorted(self.objects[Kind.SLICE].items())
            if body["metadata"].get("labels", {}).get(meta.POOL_LABEL) == pool
        }

    def members(self, pool: str) -> dict[str, str]:
        """Node → state of all members of a pool, as its slices say."""
        found = [self.objects[Kind.SLICE][name]["members"] for name in self.slices(pool)]
        return {item["node"]: item["state"] for members in found for item in members}

    def conditions(self, kind: Kind, name: str) -> dict[str, tuple[str, str]]:
        """Type → status and reason."""
        status = self.objects[kind][name].get("status") or {}
        return {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions") or []}

    def written(self, kind: Kind, name: str | None = None) -> list[Write]:
        """The operator's writes of one kind, or of one object."""
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
        self._tell(kind, "MODIFIED" if before else "ADDED", after)
        return copied(after)

    def _new_uid(self, body: Json) -> str:
        """The uid that the builder gave, unless an object had it before."""
        wanted = str(body["metadata"].get("uid") or f"uid-{body['metadata']['name']}")
        uid = f"{wanted}-{self._version}" if wanted in self._uids else wanted
        self._uids.add(uid)
        return uid

    def _tell(self, kind: Kind, event: str, body: Json) -> None:
        if self.feed:
            asyncio.get_running_loop().call_soon(self.feed, kind, event, copied(body))

    # What the operator asks, by the two methods of an ApiClient that it uses.

    async def param_serialize(
        self,
        method: str,
        path: str,
        *,
        query_params: Sequence[tuple[str, str]],
        header_params: dict[str, str],
        **_: Any,
    ) -> tuple[str, str, dict[str, str], None, None]:
        """As of the client: method, URL, headers, and two that are not used."""
        return method, f"{path}?{urlencode(query_params)}", header_params, None, None

    async def call_api(self, method: str, url: str, headers: dict[str, str], body: Any, **_: Any) -> "Answer":
        """Answer one request; a refusal is an answer, too."""
        try:
            found = await self._serve(method, urlsplit(url), body, apply="apply" in headers["Content-Type"])
        except ApiException as error:
            return Answer(b"", error.status, error.reason)
        return Answer(json.dumps(found).encode())

    async def _serve(self, method: str, url: SplitResult, body: Any, *, apply: bool) -> Any:
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

    async def page(self, kind: Kind, _more: object, /) -> Json:
        """All objects of a kind, in one page."""
        self._ask("list", kind, "")
        await asyncio.sleep(0)
        return {"items": [*self.objects[kind].values()], "metadata": {"resourceVersion": "1"}}

    async def _get(self, kind: Kind, name: str) -> Json:
        """One object, or 404."""
        self._ask("get", kind, name)
        await asyncio.sleep(0)
        return self._known(kind, name)

    async def create(self, kind: Kind, body: Json) -> Json:
        """A new object, or 409."""
        name = body["metadata"]["name"]
        await self._before("create", kind, name)
        if name in self.objects[kind]:
            raise ApiException(status=409, reason="AlreadyExists")
        return self._done("create", kind, name, body)

    async def patch(self, kind: Kind, name: str, body: Any, *, apply: bool) -> Json:
        """A merge patch, a JSON patch, or an apply (as of one writer), of all but the status."""
        await self._before("patch", kind, name)
        known = self._known(kind, name)
        if apply and body["metadata"].get("uid") != known["metadata"]["uid"]:
            raise ApiException(status=409, reason="Conflict")
        wanted = replaced(known, body) if isinstance(body, list) else merged(known, body)
        self._check(known, wanted["metadata"].get("resourceVersion"))
        return self._done("patch", kind, name, {**wanted, "status": known.get("status")})

    async def patch_status(self, kind: Kind, name: str, body: Json, *, apply: bool) -> Json:
        """A merge patch of the status, or an apply of conditions beside those of others."""
        await self._before("status", kind, name)
        known = self._known(kind, name)
        if apply and body["metadata"].get("uid") != known["metadata"]["uid"]:
            raise ApiException(status=409, reason="Conflict")
        self._check(known, body["metadata"].get("resourceVersion"))
        status = applied(known.get("status") or {}, body["status"]) if apply else body["status"]
        return self._done("status", kind, name, merged(known, {"status": status}))

    async def remove(self, kind: Kind, name: str, version: str) -> Json:
        """Delete this very object."""
        await self._before("delete", kind, name)
        known = self._known(kind, name)
        self._check(known, version)
        self.writes.append(Write(now(), "delete", kind, name))
        self.delete(kind, name)
        return known

    async def _delete_lease(self, name: str, version: str) -> Json:
        """The Lease of a node, if it was not renewed meanwhile."""
        await self._before("delete_lease", Kind.NODE, name)
        if version != self.leases.get(name):
            raise ApiException(status=409, reason="Conflict")
        del self.leases[name]
        return {}

    async def _post_event(self, body: Json) -> Json:
        """An Event of events.k8s.io/v1."""
        await asyncio.sleep(self.event_delay)
        self.requests["event"] += 1
        if error := self.event_fault():
            raise error
        self.events.append((now(), body))
        return body

    def told(self, name: str | None = None) -> list[tuple[str, str]]:
        """Reason and note of the Events that regard an object, in the order in which they came."""
        return [(e["reason"], e["note"]) for _, e in self.events if name in {None, e["regarding"]["name"]}]

    def _ask(self, verb: str, kind: Kind, name: str) -> None:
        self.requests[verb] += 1
        if self.fault and (error := self.fault(verb, kind, name)):
            raise error

    async def _before(self, verb: str, kind: Kind, name: str) -> None:
        await asyncio.sleep(self.delay)
        self._ask(verb, kind, name)

    def _known(self, kind: Kind, name: str) -> Json:
        if name not in self.objects[kind]:
            raise ApiException(status=404, reason="NotFound")
        return self.objects[kind][name]

    def _check(self, known: Json, version: str | None) -> None:
        if version is not None and version != known["metadata"]["resourceVersion"]:
            raise ApiException(status=409, reason="Conflict")

    def _done(self, verb: str, kind: Kind, name: str, body: Json) -> Json:
        self.writes.append(Write(now(), verb, kind, name))
        return self._store(kind, body)


@dataclass(slots=True)
class Answer:
    """An answer that was not read yet."""

    body: bytes
    status: int = 200
    reason: str = "OK"

    @property
    def response(self) -> "Answer":
        """Itself: the client wraps aiohttp's response."""
        return self

    async def read(self) -> bytes:
        """The body."""
        return self.body


def copied(value: T) -> T:
    """As it comes over the wire; much faster than `copy.deepcopy`."""
    return cast("T", json.loads(json.dumps(value)))


def merged(value: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
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
    """A JSON patch of `replace` operations."""
    result = copied(value)
    for operation in operations:
        *way, last = operation["path"].strip("/").split("/")
        functools.reduce(lambda inner, key: inner[key], way, result)[last] = operation["value"]
    return result


def applied(status: Json, ours: Json) -> Json:
    """A server-side apply of conditions, merged by type with those of others."""
    stored = status.get("conditions") if isinstance(status, dict) else None
    found = [*(stored if isinstance(stored, list) else []), *ours["conditions"]]
    conditions = {c["type"]: c for c in found if isinstance(c, dict) and isinstance(c.get("type"), str)}
    return {**ours, "conditions": list(conditions.values())}


# Redis.


@dataclass(slots=True)
class FakeRedis:
    """The writer's methods over dictionaries."""

    pools: dict[str, PoolDocument] = field(default_factory=dict)
    nodes: dict[str, NodeDocument] = field(default_factory=dict)
    index: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[Transition]] = field(default_factory=dict)
    """Newest first."""
    term: int = 0
    complete: bool | None = None
    fault: BaseException | None = None
    """Raised by every method while it is set."""
    refusals: dict[str, BaseException] = field(default_factory=dict)
    """Method, or method and name → what it raises."""
    delay: float = 0.0
    log: list[tuple[float, str, str]] = field(default_factory=list)
    """When, which method, which name; reads are not in it."""

    def flush(self) -> None:
        """Lose everything."""
        self.pools, self.nodes, self.index, self.history = {}, {}, {}, {}
        self.term, self.complete = 0, None

    def verbs(self, name: str) -> list[str]:
        """The writes of one name."""
        return [verb for _, verb, whose in self.log if whose == name]

    async def claim(self, term: int, _cluster: str) -> int:
        """The term that Redis knows."""
        await self._ask("claim", "")
        self.term = max(self.term, term)
        return self.term

    async def replace_pool(self, image: PoolDocument) -> None:
        """Store a pool."""
        await self._write("replace_pool", image.name)
        self.pools[image.name] = image
        if image.generator:
            self.index[index_field(image.generator, image.key or "")] = image.name

    async def drop_pool(self, name: str) -> None:
        """Drop a pool and its index entry."""
        await self._write("drop_pool", name)
        self.pools.pop(name, None)
        self.index = {key: pool for key, pool in self.index.items() if pool != name}

    async def replace_node(self, image: NodeDocument, happened: Sequence[str] = ()) -> None:
        """Store a node, and what happened to it."""
        await self._write("replace_node", image.name)
        self.nodes[image.name] = image
        self._remember(image.name, happened)

    async def drop_node(self, name: str, happened: Sequence[str] = (), *, delete_history: bool = True) -> None:
        """Drop a node, or all but what happened to it."""
        await self._write("drop_node", name)
        self.nodes.pop(name, None)
        if delete_history:
            self.history.pop(name, None)
        else:
            self._remember(name, happened)

    def _remember(self, name: str, happened: Sequence[str]) -> None:
        if happened:
            self.history[name] = [*map(decode, reversed(happened)), *self.history.get(name, [])][:MAX_TRANSITIONS]

    async def drop_index(self, fields: Any) -> None:
        """Drop fields of the index."""
        names = list(fields)
        if names:
            await self._write("drop_index", ",".join(names))
        for name in names:
            self.index.pop(name, None)

    async def stamp(self, *, complete: bool) -> None:
        """Say that the projection is alive."""
        await self._write("stamp", "")
        self.complete = complete

    async def check_drift(self, pools: Mapping[str, PoolDocument], nodes: Mapping[str, NodeDocument]) -> DriftReport:
        """Compare what is there when asked; the answer takes its time."""
        wanted = {index_field(image.generator, image.key or "") for image in pools.values() if image.generator}
        result = DriftReport(
            claimed=bool(self.term),
            pools=frozenset(name for name, image in pools.items() if self.pools.get(name) != image),
            stray_pools=frozenset(self.pools.keys() - pools),
            stray_index=frozenset(self.index.keys() - wanted),
            nodes=frozenset(name for name, image in nodes.items() if self.nodes.get(name) != image),
            stray_nodes=frozenset(self.nodes.keys() - nodes),
        )
        await self._ask("audit", "")
        return result

    async def _ask(self, verb: str, name: str) -> None:
        await asyncio.sleep(self.delay)
        if error := self.fault or self.refusals.get(verb) or self.refusals.get(f"{verb} {name}"):
            raise error

    async def _write(self, verb: str, name: str) -> None:
        await self._ask(verb, name)
        if not self.term:
            raise TermNotClaimedError("no term")
        self.log.append((now(), verb, name))


# The whole.


async def one_cluster() -> str:
    """What tells the cluster from others."""
    return "cluster-1"


class Fleet:
    """One operator on a fake API server and, unless `redis` is None, a fake Redis; `follows` v1 Nodes or does not."""

    def __init__(self, api: FakeApi | None = None, redis: FakeRedis | None = None, *, follows: bool = False) -> None:
        self.api = api or FakeApi()
        self.redis = redis
        self.leading = True
        self.term = 7
        self.state = ClusterCache()
        clock = Clock(asyncio.get_running_loop().time, asyncio.get_running_loop().time)
        self.narrator = EventRecorder(self.state, clock)
        self.mirror = self._mirror(redis) if redis else None
        client = cast("Any", self.api)
        sink = KubeWriter(client, "fleet", leader=lambda: self.leading, term=lambda: self.term)
        kinds = (Kind.KUBE_NODE, *CUSTOM_KINDS) if follows else CUSTOM_KINDS
        self.reconciler = Manager(
            self.state, Reader(client, "fleet"), sink, self.mirror, clock, recorder=self.narrator, kinds=kinds
        )
        self.tasks: list[asyncio.Task[Any]] = []
        self.held = False
        """True while the Lease stream is open and brings nothing."""
        self._beats = 0

    def _mirror(self, redis: FakeRedis) -> Publisher:
        async def raise_term(term: int) -> None:
            self.term = max(self.term, term)

        return Publisher(
            cast("Any", redis),
            term=lambda: self.term,
            raise_term=raise_term,
            cluster=one_cluster,
            on_state_change=self.narrator.redis_health,
        )

    async def canary(self) -> None:
        """Renew the canary and bring it back, as Canary and LeaseStream do, while the stream is not `held`."""
        while True:
            renewed = f"{now()}"
            self.reconciler.ingest.on_probe_sent(renewed)
            if not self.held:
                self.reconciler.ingest.on_probe_received(renewed)
            await asyncio.sleep(PROBE_SECONDS)

    def watch(self) -> None:
        """From now on the operator is told what changes."""
        self.api.feed = self.reconciler.ingest.on_object

    def beat(self, *names: str) -> None:
        """The agents of these nodes (of none given: of all) renew their Leases."""
        self._beats += 1
        found = names or tuple(self.api.objects[Kind.NODE])
        self.api.leases |= {f"{meta.LEASE_PREFIX}{name}": str(self._beats) for name in found}
        if not self.held:
            beats = [lease(name, f"{now()}/{self._beats}", version=str(self._beats)) for name in found]
            self.reconciler.ingest.on_heartbeats(beats)

    async def beating(self, seconds: float, *names: str) -> None:
        """Let time pass with these nodes (of none given: all) beating each H."""
        end = now() + seconds
        while now() < end:
            self.beat(*names)
            await asyncio.sleep(min(H, end - now()))

    def leases_listed(self) -> None:
        """The first listing of Leases: one for each node."""
        self.reconciler.ingest.on_heartbeats([lease(name, "listed") for name in self.api.objects[Kind.NODE]])
        self.reconciler.ingest.on_watch_restored()

    async def lead(self) -> None:
        """Begin to work, as the leader does."""
        self.narrator.leader_elected(
            self.term, EventObject("Lease", "hotpool-operator", "uid-lease", "coordination.k8s.io/v1")
        )
        client = cast("Any", self.api)
        events = EventWriter(client, "fleet", leader=lambda: self.leading, instance="operator-1")
        parts = (self.reconciler.run(), self.canary(), self.narrator.run(events.post))
        self.tasks += [asyncio.create_task(part) for part in parts]
        if self.mirror:
            await self.reconciler.all_reconciled.wait()
            self.tasks.append(asyncio.create_task(self.mirror.run()))

    async def stop(self) -> None:
        """The process ends; raises what ended a part before."""
        self.api.feed = None
        done = [task for task in self.tasks if task.done()]
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.reconciler.finish()
        for task in done:
            task.result()

    @property
    def keys(self) -> set[Key]:
        """Everything that is known, as keys."""
        return {Key(kind, name) for kind in CUSTOM_KINDS for name in self.state.identities(kind)}


@asynccontextmanager
async def operator(api: FakeApi, redis: FakeRedis | None = None, *, follows: bool = False) -> AsyncIterator[Fleet]:
    """An operator that has listed everything, leads and has done its first work; it ends with the block."""
    fleet = Fleet(api, redis, follows=follows)
    fleet.leases_listed()
    fleet.watch()
    await fleet.reconciler.open_gate()
    await fleet.lead()
    await asyncio.sleep(0.5)
    try:
        yield fleet
    finally:
        await fleet.stop()


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> float:
    """Let simulated time pass until something holds, and tell how long it took."""
    began = now()
    while not holds():
        assert now() - began < seconds, "it never came true"
        await asyncio.sleep(0.01)
    return now() - began
