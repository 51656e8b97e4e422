"""A simulated fleet whose operator publishes pools as Services, over a fake API server that stores these, too."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Final, cast
from urllib.parse import SplitResult, parse_qs, unquote

from kubernetes.aio.client.exceptions import ApiException
from tests.support.builders import Json, condition, node_object, pool_object, report, requires, service
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, copied, merged, now

from hotpool.controllers.result import Target
from hotpool.controllers.service import ServiceContext
from hotpool.controllers.service_target import ServiceTarget
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.model import Kind
from hotpool.kube.service_reader import ServiceReader
from hotpool.kube.service_writer import ServiceWriter
from hotpool.kube.writer import KubeWriter

SERVICES, SLICES = "services", "endpointslices"
_KINDS: Final = {SERVICES: "Service", SLICES: "EndpointSlice"}


def no_fault(_verb: str, _plural: str, _name: str) -> None:
    """Let each request succeed."""


@dataclass(frozen=True, slots=True)
class ServiceWrite:
    """One stored write of a Service or EndpointSlice by the operator."""

    at: float
    verb: str
    plural: str
    name: str


class ServiceApi(FakeApi):
    """The fake API server with Services and EndpointSlices. A `fault` of slices is one of these, too."""

    def __init__(self) -> None:
        super().__init__()
        self.core: dict[str, dict[str, Json]] = {SERVICES: {}, SLICES: {}}
        """Plural → name → object."""
        self.service_writes: list[ServiceWrite] = []
        self.service_fault: Callable[[str, str, str], BaseException | None] = no_fault
        """Function of verb, plural and name; the exception that it returns is raised."""
        self.service_delay = 0.0
        """Seconds that each write of a Service or EndpointSlice takes."""
        self.denied: set[tuple[str, str]] = set()
        """Verb and plural of the rights that the operator lacks."""
        self.collects = True
        """False: the garbage collector does not run."""

    # Actions of people.

    def put_core(self, plural: str, name: str, **body: Any) -> Json:
        """Create or replace an object, as another client does."""
        metadata = {"name": name, "uid": f"uid-{name}", **body.pop("metadata", {})}
        return self._store_core(plural, {"metadata": metadata, **body})

    def edit_core(self, plural: str, name: str, patch: Json) -> Json:
        """Merge-patch an object, as `kubectl patch` does."""
        return self._store_core(plural, merged(self.core[plural][name], patch))

    def delete_core(self, plural: str, name: str) -> None:
        """Delete an object and, as the garbage collector does, what it owns."""
        deleted = self.core[plural].pop(name)
        self._version += 1
        self._collect(deleted["metadata"]["uid"])

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object and what it owns."""
        uid = self.objects[kind][name]["metadata"]["uid"]
        super().delete(kind, name)
        self._collect(uid)

    def _collect(self, uid: str) -> None:
        for plural in (SERVICES, SLICES) if self.collects else ():
            for name, item in list(self.core[plural].items()):
                owners = item["metadata"].get("ownerReferences") or []
                if uid in {owner["uid"] for owner in owners} and name in self.core[plural]:
                    self.delete_core(plural, name)

    # What clients of a Service see.

    def endpoints(self, service_name: str) -> dict[str, str]:
        """Return address → conditions that are true, joined by `+`, of all EndpointSlices of a Service."""
        found: dict[str, str] = {}
        for item in self.core[SLICES].values():
            if item["metadata"]["labels"].get("kubernetes.io/service-name") == service_name:
                for endpoint in item["endpoints"]:
                    true = [name for name, value in endpoint["conditions"].items() if value]
                    (address,) = endpoint["addresses"]
                    assert address not in found, f"{address} is listed twice"
                    found[address] = "+".join(true)
        return found

    def written_core(self, plural: str | None = None) -> list[tuple[str, str]]:
        """Return verb and name of the writes of one resource, or of both."""
        return [(write.verb, write.name) for write in self.service_writes if plural in {None, write.plural}]

    # Requests of the operator.

    async def _serve(self, method: str, url: SplitResult, body: Any, *, apply: bool) -> Any:
        _, _, tail = unquote(url.path).partition("/namespaces/fleet/")
        plural, _, name = tail.partition("/")
        if url.path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            self._fail("review", plural, "")
            return {"status": {"allowed": (asked["verb"], asked["resource"]) not in self.denied}}
        if plural not in self.core:
            return await super()._serve(method, url, body, apply=apply)
        if method == "GET":
            await asyncio.sleep(0)
            return self._read(plural, name, parse_qs(url.query).get("labelSelector", [""])[0])
        return await self._write(method, plural, name or body["metadata"]["name"], body)

    def _read(self, plural: str, name: str, selector: str) -> Json:
        if name:
            self._fail("get", plural, name)
            return copied(self._known(plural, name))
        self._fail("list", plural, "")
        label, _, value = selector.partition("=")
        items = [
            item
            for item in self.core[plural].values()
            if (found := (item["metadata"].get("labels") or {}).get(label)) is not None and value in {"", found}
        ]
        return {"items": copied(items), "metadata": {"resourceVersion": "1"}}

    async def _write(self, method: str, plural: str, name: str, body: Json) -> Json:
        verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}[method]
        await asyncio.sleep(self.service_delay)
        self._fail(verb, plural, name)
        if method == "POST" and name in self.core[plural]:
            raise ApiException(status=409, reason="AlreadyExists")
        known = {} if method == "POST" else self._known(plural, name)
        if method == "PATCH":
            self._check(known, body["metadata"]["resourceVersion"])
        if method == "DELETE":
            self._check(known, body["preconditions"]["resourceVersion"])
            assert body["preconditions"]["uid"] == known["metadata"]["uid"]
        self.service_writes.append(ServiceWrite(now(), verb, plural, name))
        if method == "DELETE":
            self.delete_core(plural, name)
            return known
        return self._store_core(plural, merged(known, body))

    def _known(self, plural: str, name: str) -> Json:
        if name not in self.core[plural]:
            raise ApiException(status=404, reason="NotFound")
        return self.core[plural][name]

    def _fail(self, verb: str, plural: str, name: str) -> None:
        error = self.service_fault(verb, plural, name) or (self.fault and self.fault(verb, Kind.SLICE, name))
        if error:
            raise error

    def _store_core(self, plural: str, body: Json) -> Json:
        name, before = body["metadata"]["name"], self.core[plural].get(body["metadata"]["name"])
        after = copied(body)
        metadata = after["metadata"]
        metadata["uid"] = before["metadata"]["uid"] if before else self._new_uid(after)
        metadata |= {"namespace": "fleet", "resourceVersion": (before or after)["metadata"].get("resourceVersion")}
        if plural == SERVICES and after["spec"].get("type") == "ClusterIP":
            after["spec"].setdefault("clusterIP", "10.96.0.10")
        if before != after:
            self._version += 1
            metadata["resourceVersion"] = str(self._version)
            self.core[plural][name] = after
        return copied(after)


class ServiceFleet(Fleet):
    """One operator with the Services target. Addresses in 10.0.0.0/8 and fd00::/8 may be published."""

    refusal = ""

    def __init__(self, api: ServiceApi, redis: FakeRedis | None = None, *, kube_nodes: bool = False) -> None:
        super().__init__(api, redis, kube_nodes=kube_nodes)
        self.cache.endpoints.policy = AddressPolicy((ip_network("10.0.0.0/8"), ip_network("fd00::/8")))

    def _targets(self) -> list[Target]:
        client = cast("Any", self.api)
        kube = KubeWriter(client, "fleet", self.leadership, "services")
        context = ServiceContext(
            cache=self.cache,
            writer=ServiceWriter(kube, "fleet", self.leadership),
            reader=ServiceReader(self._reader, self._clock),
            resync=self.manager.resync,
            clock=self._clock,
            recorder=self.recorder,
            allows=self.cache.endpoints.policy.vouches_for,
            refusal=self.refusal,
        )
        return [*super()._targets(), ServiceTarget(context)]

    @property
    def services_error(self) -> str:
        """Reason why the Services are not as desired; empty if they are."""
        return self.manager.target_errors().get("services", "no leader")


def asr(address: str, sequence: int = 1, *, port: int = 6007, running: bool = True) -> Json:
    """Return the report of a node with one asr service at an address."""
    state: Json = {} if running else {"state": "Stopped"}
    endpoint = {"addresses": [], "port": port}
    return report(
        service("w", "asr", endpoint=endpoint, **state),
        addresses=[{"ip": address, "source": "Route"}],
        sequence=sequence,
    )


def address(number: int) -> str:
    """Return the address of a node."""
    return f"10.0.{number // 250}.{number % 250 + 1}"


def service_fleet(nodes: int = 2, *, service_spec: Json | None = None, **spec: Any) -> ServiceApi:
    """Return an API server with a pool `asr` that asks for a Service, and nodes n0, n1, … that match it."""
    api = ServiceApi()
    put_pool(api, "asr", service_spec, **spec)
    for number in range(nodes):
        put_node(api, f"n{number}", asr(address(number)))
    return api


def put_node(api: FakeApi, name: str, content: Json, *, people: tuple[str, ...] = ()) -> None:
    """Create a node that the former leader knew. `people`: addresses in its spec."""
    conditions = [condition(), condition("Draining", "False", "NotRequested")]
    body = node_object(name, content, conditions=conditions)
    api.put({**body, "spec": {"addresses": list(people)} if people else {}})


def put_pool(api: FakeApi, name: str, service_spec: Json | None = None, *, created: int = 1, **spec: Any) -> None:
    """Create a pool of asr nodes that asks for a Service. `created`: the second of its creation."""
    wanted = {"ports": [{"type": "asr", "port": 80}], **(service_spec or {})}
    body = pool_object(name, **{"requires": requires("asr"), "service": wanted, **spec})
    body["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{created:02}Z"
    api.put(body)


@asynccontextmanager
async def operator(
    api: ServiceApi, redis: FakeRedis | None = None, *, kube_nodes: bool = False, refusal: str = ""
) -> AsyncIterator[ServiceFleet]:
    """Run an operator that has listed everything, leads and has written its first changes; it ends with the block."""
    fleet = ServiceFleet(api, redis, kube_nodes=kube_nodes)
    fleet.refusal = refusal
    fleet.list_leases()
    fleet.watch()
    await fleet.manager.open_gate()
    await fleet.lead()
    await asyncio.sleep(0.5)
    try:
        yield fleet
    finally:
        await fleet.stop()


def addresses(numbers: Iterable[int]) -> set[str]:
    """Return the addresses of nodes."""
    return {address(number) for number in numbers}
