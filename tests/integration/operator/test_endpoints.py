"""Endpoints of nodes in simulated time: claims, conflicts, conditions, pods, and pools that require one (B13, D2)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException
from tests.support.builders import kube_node_object, node_object, pool_object, report, requires, service
from tests.support.simulated_fleet import FakeApi, Fleet, operator, simulated, until

from hotpool.controllers import pod_reader
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.model import Endpoint, Kind

Json = dict[str, Any]
TEN = AddressPolicy(allowed_cidrs=(ip_network("10.0.0.0/8"),))
DISTRUST = AddressPolicy(trust_agents=False)
POD = {"namespace": "fleet", "name": "p", "uid": "uid-p"}


@asynccontextmanager
async def beating_operator(api: FakeApi, **options: Any) -> AsyncIterator[Fleet]:
    """Run an operator that has seen a heartbeat of every node."""
    async with operator(api, **options) as fleet:
        await fleet.beating(2)
        yield fleet


def claiming(ip: str = "10.0.0.1", *, port: int = 6007, sequence: int = 1, **more: Any) -> Json:
    """Return a report with one asr service that claims an address and a port; `more`: of the service."""
    endpoint = {"addresses": [], "port": port, "appProtocol": None}
    addresses = [{"ip": ip, "source": "Route"}]
    return report(service("w", "asr", **{"endpoint": endpoint, **more}), addresses=addresses, sequence=sequence)


def claiming_pod(ip: str = "10.244.1.9", **more: Any) -> Json:
    return claiming(endpoint={"addresses": [ip], "port": 80, "appProtocol": None}, pod=POD, **more)


def pod_object(node: str = "n", ip: str = "10.244.1.9", *, uid: str = "uid-p", phase: str = "Running") -> Json:
    return {
        "metadata": {"name": "p", "namespace": "fleet", "uid": uid},
        "spec": {"nodeName": node},
        "status": {"phase": phase, "podIPs": [{"ip": ip}]},
    }


def api_with(**reports: Json) -> FakeApi:
    """Return an API with these nodes, a pool that requires an endpoint, and one that does not."""
    api = FakeApi()
    for name, content in reports.items():
        api.put(node_object(name, content))
    api.put(pool_object("strict", requires=requires("asr", endpoint="Required")))
    api.put(pool_object("plain", requires=requires("asr")))
    return api


def put_report(api: FakeApi, name: str, content: Json) -> None:
    api.put({**api.objects[Kind.NODE][name], "status": {**api.objects[Kind.NODE][name]["status"], "report": content}})


def endpoints(fleet: Fleet, name: str) -> dict[str, Endpoint]:
    return dict(fleet.cache.nodes[name].view.endpoints)


def vouched(fleet: Fleet, name: str) -> tuple[str, ...]:
    found = endpoints(fleet, name)
    return found["w"].vouched if found else ()


def problem(api: FakeApi, name: str, type_: str) -> str | None:
    """Return the message of a condition that is True."""
    conditions = api.objects[Kind.NODE][name]["status"].get("conditions") or []
    return next((c["message"] for c in conditions if (c["type"], c["status"]) == (type_, "True")), None)


@simulated
async def test_two_claims_of_one_address_are_a_condition_of_both_until_one_ends_and_nothing_is_written_meanwhile() -> (
    None
):
    api = api_with(n=claiming(), m=claiming(port=6008))
    async with beating_operator(api) as fleet:
        await until(lambda: api.members("strict").keys() == {"m", "n"})
        put_report(api, "m", claiming(sequence=2))
        await until(lambda: api.members("strict") == {})
        await until(lambda: problem(api, "m", "AddressConflict") is not None)
        text = "w at 10.0.0.1:6007 is claimed by m, too, with an equal right"
        assert problem(api, "n", "AddressConflict") == text
        assert api.members("plain").keys() == {"m", "n"}
        await fleet.beating(30)
        writes = len(api.writes)
        await fleet.beating(60)
        assert len(api.writes) == writes
        put_report(api, "m", claiming(port=6009, sequence=3))
        await until(lambda: api.members("strict").keys() == {"m", "n"})
        await until(lambda: problem(api, "n", "AddressConflict") is None)
        assert api.conditions(Kind.NODE, "m")["AddressConflict"] == ("False", "NoProblem")
        await fleet.beating(12)
        assert [reason for reason, _ in api.event_notes("n") if "Address" in reason] == [
            "AddressConflict",
            "AddressConflictResolved",
        ]


@simulated
async def test_a_restart_with_a_stored_conflict_writes_nothing() -> None:
    api = api_with(n=claiming(), m=claiming())
    async with beating_operator(api) as fleet:
        await until(lambda: problem(api, "m", "AddressConflict") is not None)
        await fleet.beating(12)
    writes = len(api.writes)
    async with beating_operator(api) as fleet:
        await fleet.beating(12)
        assert len(api.writes) == writes


@simulated
async def test_an_offline_node_does_not_keep_its_address_from_a_live_one() -> None:
    api = api_with(n=claiming(), m=claiming())
    async with beating_operator(api) as fleet:
        await fleet.beating(90, "m")
        assert api.members("strict") == {"m": "Ready"}
        assert problem(api, "n", "AddressConflict") == "w at 10.0.0.1:6007 is claimed by m, too, with a better right"


@simulated
async def test_a_node_that_the_brake_retains_keeps_its_endpoint() -> None:
    api = api_with(**{f"n{index}": claiming(f"10.0.0.{index}") for index in range(6)})
    async with beating_operator(api) as fleet:
        await fleet.beating(100, "n0")
        assert set(api.members("strict")) == {f"n{index}" for index in range(6)}
        assert endpoints(fleet, "n5")


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        ("169.254.169.254", "is link-local"),
        ("127.0.0.1", "is a loopback address"),
        ("::", "is unspecified"),
        ("ff02::1", "is a multicast address"),
        ("64:ff9b::7f00:1", "embeds 127.0.0.1, which is a loopback address"),
        ("10.96.0.10", "is in the range of Services (10.96.0.0/12)"),
        ("10.1.2.3", "is in endpoints.deniedCIDRs (10.1.0.0/16)"),
        ("10.0.0.9", "is the API server's, with its port"),
    ],
)
def test_an_address_that_is_never_allowed_is_named_in_a_condition_and_not_used(ip: str, reason: str) -> None:
    policy = AddressPolicy(
        allowed_cidrs=(ip_network("0.0.0.0/0"), ip_network("::/0")),
        denied_cidrs=(ip_network("10.1.0.0/16"),),
        service_cidrs=(ip_network("10.96.0.0/12"),),
        api_servers=frozenset({("10.0.0.9", 6007)}),
    )

    @simulated
    async def test() -> None:
        api = api_with(n=claiming(ip))
        async with beating_operator(api, policy=policy) as fleet:
            await until(lambda: problem(api, "n", "AddressNotAllowed") is not None)
            place = f"[{ip}]:6007" if ":" in ip else f"{ip}:6007"
            assert problem(api, "n", "AddressNotAllowed") == f"w at {place} {reason}"
            assert (endpoints(fleet, "n"), api.members("strict")) == ({}, {})
            excluded = api.objects[Kind.POOL]["strict"]["status"]["excluded"]
            assert excluded == [{"reason": "NoEndpoint", "count": 1}]

    test()


@simulated
async def test_reports_of_a_former_agent_and_services_on_loopback_move_no_node_out_of_a_pool_as_before() -> None:
    former, loopback = report(service("w", "asr")), claiming(endpoint=None, endpointReason="LoopbackOnly")
    api = FakeApi()
    for name, content in {"former": former, "loopback": former}.items():
        api.put(node_object(name, content))
    api.put(pool_object("plain", requires=requires("asr")))
    async with beating_operator(api) as fleet:
        await fleet.beating(30)
        assert api.members("plain").keys() == {"former", "loopback"}
        slices, writes = api.objects[Kind.SLICE].copy(), len(api.writes)
        put_report(api, "loopback", loopback | {"sequence": 2})
        await fleet.beating(30)
        assert (api.objects[Kind.SLICE], len(api.writes)) == (slices, writes)


@simulated
async def test_a_node_joins_a_pool_that_requires_an_endpoint_when_it_has_one_and_leaves_at_once_without() -> None:
    api = api_with(n=claiming(endpoint=None, endpointReason="LoopbackOnly"))
    async with beating_operator(api):
        assert api.members("strict") == {}
        put_report(api, "n", claiming(sequence=2))
        assert await until(lambda: api.members("strict") == {"n": "Ready"}) < 0.1
        await asyncio.sleep(2)
        put_report(api, "n", claiming(sequence=3, endpoint=None, endpointReason="Local"))
        assert await until(lambda: api.members("strict") == {}) < 0.1


@simulated
async def test_addresses_of_people_or_of_the_v1_node_win_against_an_agent_in_an_allowed_range() -> None:
    api = api_with(victim=claiming(), liar=claiming())
    async with beating_operator(api, kube_nodes=True, policy=TEN) as fleet:
        assert api.members("strict") == {}
        api.put(kube_node_object("victim", addresses=["10.0.0.1"]))
        await until(lambda: api.members("strict") == {"victim": "Ready"})
        assert vouched(fleet, "victim") == ("10.0.0.1",)
        api.delete(Kind.KUBE_NODE, "victim")
        if "victim" not in api.objects[Kind.NODE]:  # the v1 Node owned it
            api.put(node_object("victim", claiming()))
        await until(lambda: api.members("strict") == {})
        api.edit(Kind.NODE, "victim", {"spec": {"addresses": ["10.0.0.1"]}})
        await until(lambda: api.members("strict") == {"victim": "Ready"})


@simulated
async def test_a_pod_is_read_once_and_vouches_for_its_address_on_its_own_node() -> None:
    api = api_with(n=claiming_pod(), other=claiming_pod())
    api.pods["fleet/p"] = pod_object()
    async with beating_operator(api) as fleet:
        await until(lambda: vouched(fleet, "n") == ("10.244.1.9",))
        assert endpoints(fleet, "other") == {}
        await fleet.beating(60)
        put_report(api, "n", claiming_pod(sequence=2))
        await fleet.beating(60)
        assert api.pod_reads == ["fleet/p"]


@simulated
async def test_a_changed_address_of_a_pod_is_read_again() -> None:
    api = api_with(n=claiming_pod())
    api.pods["fleet/p"] = pod_object()
    async with beating_operator(api) as fleet:
        await until(lambda: vouched(fleet, "n") == ("10.244.1.9",))
        api.pods["fleet/p"] = pod_object(ip="10.244.1.10")
        put_report(api, "n", claiming_pod("10.244.1.10", sequence=2))
        await until(lambda: vouched(fleet, "n") == ("10.244.1.10",))
        assert len(api.pod_reads) == 2


@pytest.mark.parametrize(
    "stored",
    [
        None,
        pod_object(uid="uid-of-another"),
        pod_object("other"),
        pod_object(ip="10.244.1.10"),
        pod_object(phase="Succeeded"),
    ],
)
def test_a_pod_that_is_not_as_claimed_vouches_for_nothing(stored: Json | None) -> None:
    @simulated
    async def test() -> None:
        api = api_with(n=claiming_pod())
        api.pods = {"fleet/p": stored} if stored else {}
        async with beating_operator(api, policy=DISTRUST):
            await until(lambda: problem(api, "n", "AddressNotAllowed") is not None)
            assert (api.members("strict"), api.members("plain")) == ({}, {"n": "Ready"})

    test()


@simulated
async def test_a_pod_of_a_namespace_without_pods_as_services_is_not_read() -> None:
    api = api_with(
        n=claiming(endpoint={"addresses": ["10.1.1.1"], "port": 80}, pod={**POD, "namespace": "kube-system"})
    )
    async with beating_operator(api, policy=DISTRUST):
        await until(lambda: problem(api, "n", "AddressNotAllowed") is not None)
        assert api.pod_reads == []


@simulated
async def test_a_pod_that_cannot_be_read_delays_nothing_and_is_read_with_pauses_that_grow() -> None:
    api = api_with(n=claiming_pod(), m=claiming("10.0.0.2"))
    api.pods["fleet/p"] = pod_object()
    api.pod_fault = lambda _name: ApiException(status=403, reason="Forbidden")
    async with beating_operator(api, policy=DISTRUST) as fleet:
        assert api.members("plain").keys() == {"m", "n"}
        await fleet.beating(600)
        assert 6 <= len(api.pod_reads) <= 12
        api.pod_fault = lambda _name: None
        await fleet.beating(300)
        assert vouched(fleet, "n") == ("10.244.1.9",)


@simulated
async def test_pods_that_an_agent_no_longer_names_are_not_read_before_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pod_reader, "CONCURRENT_READS", 1)
    api = api_with(liar=report(), n=report())
    api.pods["fleet/p"] = pod_object()
    async with beating_operator(api) as fleet:
        api.pod_delay = 1.0
        for sequence in range(2, 30):
            await asyncio.sleep(0.01)
            named = {"namespace": "fleet", "name": f"x{sequence}", "uid": "u"}
            put_report(api, "liar", claiming_pod(sequence=sequence) | claiming_of(named))
        put_report(api, "n", claiming_pod(sequence=2))
        assert await until(lambda: vouched(fleet, "n") == ("10.244.1.9",)) < 4


@simulated
async def test_the_address_of_a_pod_that_ended_goes_to_the_pod_that_has_it_now() -> None:
    """An agent goes on to claim the pod, with an address that another pod has been given."""
    late = {"namespace": "fleet", "name": "q", "uid": "uid-q"}
    api = api_with(n=claiming_pod(), m=report())
    api.pods["fleet/p"] = pod_object()
    async with beating_operator(api) as fleet:
        await until(lambda: vouched(fleet, "n") == ("10.244.1.9",))
        api.pods = {"fleet/q": pod_object("m", uid="uid-q")}
        put_report(api, "m", claiming_pod(sequence=2) | claiming_of(late))
        assert await until(lambda: vouched(fleet, "m") == ("10.244.1.9",)) < 1
        assert endpoints(fleet, "n") == {}


def claiming_of(pod: Json) -> Json:
    found = claiming_pod(sequence=2)
    return {"services": [{**found["services"][0], "pod": pod}]}


@simulated
async def test_a_restart_evicts_no_node_whose_address_only_a_pod_vouches_for() -> None:
    api = api_with(n=claiming_pod())
    api.pods["fleet/p"] = pod_object()
    async with beating_operator(api, policy=DISTRUST) as fleet:
        await until(lambda: api.members("strict") == {"n": "Ready"})
        await fleet.beating(12)
    writes, api.pod_delay = len(api.writes), 2.0
    async with beating_operator(api, policy=DISTRUST) as fleet:
        await fleet.beating(12)
        assert len(api.writes) == writes


@simulated
async def test_another_policy_is_applied_to_every_node() -> None:
    api = api_with(n=claiming(), m=claiming("192.0.2.7"))
    async with beating_operator(api) as fleet:
        await until(lambda: api.members("strict").keys() == {"m", "n"})
        await fleet.manager.apply_policy(AddressPolicy(denied_cidrs=TEN.allowed_cidrs))
        await until(lambda: api.members("strict").keys() == {"m"})
