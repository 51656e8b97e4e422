"""Services of pools on a real API server: endpoints, repairs, and the limits of the operator's credential (D12).

In simulated time: tests/integration/operator/test_services.py.
"""

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from kubernetes import config
from tests.cluster.operator.test_frozen_targets import frozen_writes
from tests.support.fleet_objects import published
from tests.support.simulated_agents import SimulatedAgents

from localfleet.fleet import Fleet
from localfleet.process import wait_for

Json = dict[str, Any]

RANGES: Final = ["10.0.0.0/8", "fd00::/8"]
VALUES: Final = {"services": {"enabled": True}, "endpoints": {"allowedCIDRs": RANGES}}
OPTIONS: Final = ("--services", "--endpoints-allowed-cidrs", ",".join(RANGES))
ADDRESSES: Final = {"edge-1": "10.1.2.3", "edge-2": "10.1.2.4"}
POOL: Final = "zh-en"
SLICE: Final = "zh-en.asr.ipv4.6000.0"
REPAIR_SECONDS: Final = 60.0
"""More than the 5 s between two drift checks."""


def new_fleet(kind_cluster: Any, redis_address: str) -> Fleet:
    """Return a fleet in a namespace of its own, whose operator may have Services."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    fleet = Fleet(kubeconfig, kubectl, f"services-{uuid.uuid4().hex[:6]}", redis_address)
    fleet.install(VALUES)
    fleet.apply(pool())
    return fleet


def pool(name: str = POOL, **service: Any) -> Json:
    ports = [{"type": "asr", "port": 80, "appProtocol": "http"}]
    spec = {"requires": {"types": [{"type": "asr"}]}, "service": {"ports": ports, **service}}
    return {"apiVersion": "hotpool.dev/v1alpha1", "kind": "NodePool", "metadata": {"name": name}, "spec": spec}


def theirs() -> Json:
    """Return a Service of other people."""
    spec = {"selector": {"app": "theirs"}, "ports": [{"name": "asr", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs"}, "spec": spec}


def get(fleet: Fleet, *words: str) -> Json:
    """Return an object as JSON; empty if there is none."""
    return dict(json.loads(fleet.kubectl("get", *words, "-o", "json", "--ignore-not-found") or "{}"))


def endpoints(fleet: Fleet, service: str) -> dict[str, bool]:
    """Return address → ready of all endpoints of a Service."""
    found = get(fleet, "endpointslices", "-l", f"kubernetes.io/service-name={service}").get("items") or ()
    return {e["addresses"][0]: e["conditions"]["ready"] for item in found for e in item.get("endpoints") or ()}


# The operator.


@pytest.fixture
def running(kind_cluster: Any, redis_address: str) -> Iterator[tuple[Fleet, SimulatedAgents]]:
    """A fleet whose operator has published two nodes behind the Service of a pool."""
    fleet = new_fleet(kind_cluster, redis_address)
    fleet.start_operator("operator", *OPTIONS)
    with SimulatedAgents(fleet.admin, fleet.namespace, interval=15, addresses=ADDRESSES) as agents:
        agents.create(ADDRESSES, ["asr"])
        fleet.wait_leading()
        wait_for("both are endpoints", lambda: endpoints(fleet, POOL) == dict.fromkeys(ADDRESSES.values(), True))
        yield fleet, agents
    fleet.close()


def test_members_are_endpoints_of_a_service_that_the_api_server_accepts_and_a_stop_removes_one(
    running: tuple[Fleet, SimulatedAgents],
) -> None:
    fleet, agents = running
    service, stored = get(fleet, "service", POOL), get(fleet, "endpointslice", SLICE)
    assert service["spec"]["clusterIP"] not in {"", "None"}
    assert (service["spec"]["type"], service["spec"].get("selector")) == ("ClusterIP", None)
    (port,) = service["spec"]["ports"]
    assert port == {"name": "asr", "port": 80, "protocol": "TCP", "targetPort": 80, "appProtocol": "http"}
    assert stored["ports"] == [{"name": "asr", "port": 6000, "protocol": "TCP", "appProtocol": "http"}]
    assert {item["targetRef"]["kind"] for item in stored["endpoints"]} == {"NodeCapability"}
    assert {item["hostname"]: item["addresses"][0] for item in stored["endpoints"]} == ADDRESSES
    agents.report("edge-1", asr=False)
    wait_for("the endpoint is gone", lambda: endpoints(fleet, POOL) == {"10.1.2.4": True})
    wait_for("readyz shows it", lambda: "[+] services" in fleet.ask_operator("readyz")[1])


def test_what_others_change_or_delete_is_repaired_and_a_restart_writes_nothing(
    running: tuple[Fleet, SimulatedAgents],
) -> None:
    fleet, _ = running
    before = {what: get(fleet, *what.split("/")) for what in (f"service/{POOL}", f"endpointslice/{SLICE}")}
    fleet.kubectl("patch", "service", POOL, "--type=merge", "-p", '{"spec":{"selector":{"app":"x"},"type":"NodePort"}}')
    fleet.kubectl("patch", "endpointslice", SLICE, "--type=merge", "-p", '{"endpoints":[{"addresses":["10.9.9.9"]}]}')
    for body in before.values():
        wait_for("it is repaired", lambda body=body: is_as_before(fleet, body), REPAIR_SECONDS)  # type: ignore[misc]
    fleet.kubectl("delete", "endpointslice", SLICE)
    wait_for("it is back", lambda: len(endpoints(fleet, POOL)) == 2, REPAIR_SECONDS)
    versions = [get(fleet, *what.split("/"))["metadata"]["resourceVersion"] for what in before]
    assert fleet.operator
    fleet.operator.stop()
    fleet.start_operator("operator", *OPTIONS)
    fleet.wait_leading()
    assert [get(fleet, *what.split("/"))["metadata"]["resourceVersion"] for what in before] == versions


def is_as_before(fleet: Fleet, before: Json) -> bool:
    """Return True if an object has the former fields, whatever its version."""
    found = get(fleet, before["kind"], before["metadata"]["name"])
    return comparable(found) == comparable(before)


def comparable(body: Json) -> Json:
    body = copy.deepcopy(body)
    for key in ("resourceVersion", "managedFields", "generation"):
        body["metadata"].pop(key, None)
    body.get("endpoints", []).sort(key=lambda item: item["addresses"])  # their order depends on who joined first
    return body


def test_another_name_or_kind_of_cluster_ip_moves_the_members_and_a_deleted_pool_takes_all_along(
    running: tuple[Fleet, SimulatedAgents],
) -> None:
    fleet, _ = running
    both = dict.fromkeys(ADDRESSES.values(), True)
    fleet.apply(pool(clusterIP="None"))
    wait_for("it is headless", lambda: get(fleet, "service", POOL).get("spec", {}).get("clusterIP") == "None")
    wait_for("it is full", lambda: endpoints(fleet, POOL) == both, REPAIR_SECONDS)
    fleet.apply(renamed("speech"))
    wait_for("the new one is full", lambda: endpoints(fleet, "speech") == both, REPAIR_SECONDS)
    wait_for("the former one is gone", lambda: not get(fleet, "service", POOL))
    fleet.kubectl("delete", "nodepool", POOL)
    wait_for("the Service is gone", lambda: not get(fleet, "service", "speech"))
    wait_for("the slices are gone", lambda: not endpoints(fleet, "speech"), REPAIR_SECONDS)


def renamed(name: str) -> Json:
    body = pool(clusterIP="None")
    body["spec"]["service"]["name"] = name
    return body


def test_a_service_of_others_stays_as_it_is_and_the_pool_says_so(running: tuple[Fleet, SimulatedAgents]) -> None:
    fleet, _ = running
    fleet.apply(theirs())
    before = get(fleet, "service", "theirs")
    fleet.apply(renamed("theirs"))
    fleet.kubectl("wait", f"nodepool/{POOL}", "--for=condition=ServiceNameTaken", "--timeout=60s")
    wait_for("the former one is gone", lambda: not get(fleet, "service", POOL))
    assert get(fleet, "service", "theirs") == before
    fleet.kubectl("delete", "service", "theirs")
    wait_for("its name is used", lambda: len(endpoints(fleet, "theirs")) == 2, REPAIR_SECONDS)


def test_frozen_writes_of_endpoint_slices_delay_neither_slices_nor_redis(
    running: tuple[Fleet, SimulatedAgents],
) -> None:
    fleet, agents = running
    with frozen_writes(fleet, "discovery.k8s.io", f"endpointslices/{SLICE}"):
        agents.report("edge-1", asr=False)
        wait_for("slices and Redis", lambda: published(fleet, POOL, {"edge-2": "Ready"}))
        wait_for("readyz shows it", lambda: "[-] services: " in fleet.ask_operator("readyz")[1])
        assert len(endpoints(fleet, POOL)) == 2
    wait_for("it has caught up", lambda: endpoints(fleet, POOL) == {"10.1.2.4": True})
    wait_for("it is ready again", lambda: fleet.probe("readyz") == 200)


# The operator's credential.


@dataclass(frozen=True, slots=True)
class Guarded:
    """A namespace with a Service of a pool and one of others, and the operator's credential."""

    fleet: Fleet
    api: Any
    pool_uid: str

    def service(self, **spec: Any) -> Json:
        """Return the Service of the pool, with other fields in its spec."""
        metadata = {
            "name": POOL,
            "labels": {"service.hotpool.dev/pool": POOL},
            "annotations": {"service.hotpool.dev/term": "7"},
            "ownerReferences": [owner("hotpool.dev/v1alpha1", "NodePool", POOL, self.pool_uid)],
        }
        ports = [{"name": "asr", "port": 80}]
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports, **spec}}

    def slice(self, *addresses: str, service: str = POOL, uid: str = "uid", **more: Any) -> Json:
        """Return an EndpointSlice of a Service. The garbage collector deletes one with a wrong uid of the Service."""
        metadata = {
            "name": f"{POOL}.asr.ipv4.6000.0",
            "labels": {
                "service.hotpool.dev/pool": POOL,
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "operator.hotpool.dev",
            },
            "annotations": {"service.hotpool.dev/term": "7"},
            "ownerReferences": [owner("v1", "Service", service, uid)],
        }
        body = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
        content = {"addressType": "IPv6" if any(":" in a for a in addresses) else "IPv4"}
        return {**body, **content, "endpoints": [{"addresses": [address]} for address in addresses], **more}

    def send(self, method: str, path: str, body: Json | None = None, *, dry: bool = True) -> str:
        """Send a request with the operator's credential. Return the refusal, or an empty string."""
        prefix = "/apis/discovery.k8s.io/v1" if path.startswith("endpointslices") else "/api/v1"
        url = f"{prefix}/namespaces/{self.fleet.namespace}/{path}"
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": content}
        query = [("dryRun", "All")] if dry and method != "GET" else []
        call = self.api.param_serialize(
            method, url, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = self.api.call_api(*call)
        text = response.read()
        return f"{response.status} {json.loads(text)['message']}" if response.status >= 400 else ""


def owner(version: str, kind: str, name: str, uid: str) -> Json:
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": True}


@pytest.fixture(scope="module")
def guarded(kind_cluster: Any, redis_address: str) -> Iterator[Guarded]:
    """No operator runs: the test has its credential."""
    fleet = new_fleet(kind_cluster, redis_address)
    fleet.apply(theirs())
    api: Any = config.new_client_from_config(str(fleet.operator_kubeconfig()))
    guarded = Guarded(fleet, api, get(fleet, "nodepool", POOL)["metadata"]["uid"])
    wait_for("the policy is enforced", lambda: "has no selector" in post(guarded, guarded.service(selector={"a": "b"})))
    wait_for(
        "the Service of others is a parameter",
        lambda: "must not add endpoints" in post(guarded, guarded.slice("10.0.0.1", service="theirs")),
    )
    assert post(guarded, guarded.service(), dry=False) == ""
    uid = get(fleet, "service", POOL)["metadata"]["uid"]
    assert post(guarded, guarded.slice("10.0.0.1", uid=uid), dry=False) == ""
    yield guarded
    fleet.close()


def post(guarded: Guarded, body: Json, *, dry: bool = True) -> str:
    return guarded.send("POST", "services" if body["kind"] == "Service" else "endpointslices", body, dry=dry)


Change = Callable[[Guarded], Json]


def edited(body: Json, **metadata: Any) -> Json:
    """Return an object of another name with other metadata; None removes a field."""
    body = copy.deepcopy(body)
    body["metadata"] |= {"name": "another", **metadata}
    return body


REFUSED: Final[dict[str, tuple[Change, str]]] = {
    "a selector": (lambda g: edited(g.service(selector={"app": "x"})), "no selector"),
    "type NodePort": (lambda g: edited(g.service(type="NodePort")), "of type ClusterIP"),
    "type LoadBalancer": (lambda g: edited(g.service(type="LoadBalancer")), "of type ClusterIP"),
    "an external name": (lambda g: edited(g.service(type="ExternalName", externalName="x.org")), "of type ClusterIP"),
    "an external address": (lambda g: edited(g.service(externalIPs=["192.0.2.1"])), "no external address"),
    "no label": (lambda g: edited(g.service(), labels={}), "is owned by the pool in its label"),
    "the label of another pool": (
        lambda g: edited(g.service(), labels={"service.hotpool.dev/pool": "x"}),
        "is owned by the pool in its label",
    ),
    "no owner": (lambda g: edited(g.service(), ownerReferences=[]), "is owned by the pool"),
    "no term": (lambda g: edited(g.service(), annotations={}), "term cannot go back"),
    "an endpoint outside of the ranges": (lambda g: edited(g.slice("10.0.0.1", "192.0.2.1")), "not 192.0.2.1"),
    "an IPv6 endpoint outside of the ranges": (lambda g: edited(g.slice("2001:db8::1")), "not 2001:db8::1"),
    "a host name": (lambda g: edited(g.slice("x.example.org", addressType="FQDN")), "not x.example.org"),
    "an endpoint of a Service of others": (
        lambda g: edited(g.slice("10.0.0.1", service="theirs")),
        "must not add endpoints to it",
    ),
    "an owner that is not the Service of the label": (
        lambda g: edited(g.slice("10.0.0.1"), ownerReferences=[owner("v1", "Service", "x", "uid")]),
        "an EndpointSlice by the Service in its label",
    ),
    "another manager": (
        lambda g: edited(
            g.slice("10.0.0.1"),
            labels={
                "service.hotpool.dev/pool": POOL,
                "kubernetes.io/service-name": POOL,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        ),
        "has the labels",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_the_operators_credential_cannot_create(guarded: Guarded, change: Change, message: str) -> None:
    assert message in post(guarded, change(guarded))


EDITS: Final[dict[str, tuple[str, Json, str]]] = {
    "the Service of others": ("services/theirs", {"metadata": {"labels": {"a": "b"}}}, "not of a pool"),
    "the Service of others, by our label": (
        "services/theirs",
        {"metadata": {"labels": {"service.hotpool.dev/pool": POOL}}},
        "not of a pool",
    ),
    "its own Service by a selector": (f"services/{POOL}", {"spec": {"selector": {"a": "b"}}}, "no selector"),
    "its own Service by an external address": (
        f"services/{POOL}",
        {"spec": {"externalIPs": ["192.0.2.1"]}},
        "no external address",
    ),
    "its own Service by a smaller term": (
        f"services/{POOL}",
        {"metadata": {"annotations": {"service.hotpool.dev/term": "6"}}},
        "a later leader",
    ),
    "its own slice by a smaller term": (
        f"endpointslices/{SLICE}",
        {"metadata": {"annotations": {"service.hotpool.dev/term": "6"}}},
        "a later leader",
    ),
    "its own slice by a foreign address": (
        f"endpointslices/{SLICE}",
        {"endpoints": [{"addresses": ["127.0.0.2"]}]},
        "127.0.0.2",
    ),
    "its own slice by the Service of others": (
        f"endpointslices/{SLICE}",
        {
            "metadata": {
                "labels": {"kubernetes.io/service-name": "theirs"},
                "ownerReferences": [owner("v1", "Service", "theirs", "uid")],
            }
        },
        "must not add endpoints to it",
    ),
}


@pytest.mark.parametrize(("path", "patch", "message"), EDITS.values(), ids=EDITS)
def test_the_operators_credential_cannot_change(guarded: Guarded, path: str, patch: Json, message: str) -> None:
    assert message in guarded.send("PATCH", path, patch)


def test_the_operators_credential_cannot_delete_what_is_of_others(guarded: Guarded) -> None:
    body = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "by-hand"}}
    guarded.fleet.apply({**body, "addressType": "IPv4", "endpoints": []})
    for path in ("services/theirs", "endpointslices/by-hand"):
        assert "not of a pool" in guarded.send("DELETE", path)
    assert guarded.send("DELETE", f"endpointslices/{SLICE}") == ""
    assert guarded.send("DELETE", f"services/{POOL}") == ""


def test_the_operators_credential_has_no_right_to_endpoints_proxies_or_whole_collections(guarded: Guarded) -> None:
    for method, path in (
        ("POST", "endpoints"),
        ("GET", f"services/{POOL}/proxy"),
        ("PATCH", f"services/{POOL}/status"),
        ("DELETE", "endpointslices"),
    ):
        assert guarded.send(method, path, {}).startswith("403"), path


def test_the_policy_lets_people_do_what_they_may(guarded: Guarded) -> None:
    words = ("patch", "service", "theirs", "--dry-run=server", "--type=merge", "-p", '{"spec":{"type":"NodePort"}}')
    assert "theirs" in guarded.fleet.kubectl(*words)
